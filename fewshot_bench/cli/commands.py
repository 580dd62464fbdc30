"""Commands of plugins: entry points of the group ``fewshot_bench.commands``, each a typer app."""

import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from importlib.metadata import EntryPoint
from typing import Any

import typer

from fewshot_bench.errors import ConfigError, PluginError
from fewshot_bench.hooks.discovery import distribution_of, read_points
from fewshot_bench.hooks.registry import PluginInfo

GROUP = "fewshot_bench.commands"


def offered(built_in: Iterable[str]) -> dict[str, EntryPoint]:
    """{name to type: entry point}; names that are claimed twice have their distribution in front.

    So have those of fewshot-bench's own commands, which no plugin takes away.
    """
    points = read_points(GROUP)[0]
    names = [*built_in, *(point.name for point in points)]
    return {p.name if names.count(p.name) == 1 else full_name(p): p for p in points}


def resolve(name: str) -> EntryPoint | None:
    """The entry point of ``name`` or ``distribution:name``, or None; ConfigError for two."""
    points = read_points(GROUP)[0]
    claims = [point for point in points if name in (point.name, full_name(point))]
    if len(claims) > 1:
        full = " or ".join(full_name(point) for point in claims)
        raise ConfigError(f"two plugins offer a command '{name}'; write {full}.")
    return claims[0] if claims else None


def rows() -> list[PluginInfo]:
    """A row of ``fsb plugins`` for each command; imports them all."""
    found = []
    for point in read_points(GROUP)[0]:
        info = PluginInfo(point.name, *distribution_of(point), point.value)
        try:
            load(point, point.name)
            info.kinds["command"] = [f"fsb {point.name}"]
        except PluginError as error:
            info.fail(error)
        found.append(info)
    return found


def full_name(point: EntryPoint) -> str:
    """``distribution:name``, which always works."""
    return f"{distribution_of(point)[0]}:{point.name}"


def stub(help: str) -> Any:
    """What stands for a command in a list, so that listing imports no plugin."""
    app = typer.Typer()
    app.command(help=help)(lambda: None)
    return typer.main.get_command(app)


def load(point: EntryPoint, name: str) -> Any:
    """Import the command; PluginError if that fails, or gives no typer app with a command in it."""
    where = f"command '{name}' of {distribution_of(point)[0]} ({point.value})"
    try:
        with redirect_stdout(sys.stderr):  # standard output is for results
            loaded = point.load()
    except (Exception, SystemExit) as error:
        raise PluginError(f"{where} cannot be loaded: {type(error).__name__}: {error}.") from error
    if not isinstance(loaded, typer.Typer):
        raise PluginError(f"{where} is a {type(loaded).__name__}; expected a typer.Typer.")
    try:
        command = typer.main.get_command(loaded)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise PluginError(f"{where} is no usable typer app: {error}.") from error
    command.name = name
    return command
