"""``fsb list`` and ``fsb plugins``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewshot_bench.errors import ConfigError, UnknownName

if TYPE_CHECKING:
    from rich.table import Table


def list_names(
    kind: Annotated[
        str,
        typer.Argument(
            help="methods, datasets, backbones, samplers, metrics, observers or exporters",
            metavar="KIND",
            show_default=False,
        ),
    ] = "",
) -> None:
    """List what is installed, and which distribution it came from."""
    from rich.markup import escape
    from rich.table import Table

    from fewshot_bench.hooks.registry import KINDS, Registry

    if not kind:
        raise ConfigError(f"fsb list: say of what: {', '.join(KINDS)}; e.g. fsb list methods.")
    if kind not in KINDS:
        raise UnknownName("kind", kind, KINDS, "For example: fsb list methods")
    table = Table(box=None, pad_edge=False)
    for column in ("name", "distribution", "version", "from"):
        table.add_column(column)
    for name, claims in Registry.discover().names(kind).items():
        for item in claims:
            shown = name if len(claims) == 1 else f"{item.distribution}:{name}"
            table.add_row(*map(escape, (shown, item.distribution, item.version, item.target)))
    _print(table)


def plugins(
    trace: Annotated[
        str | None, typer.Option("--trace", help="show the traceback of a broken plugin")
    ] = None,
) -> None:
    """List plugins: what each offers, and what is wrong with those that are broken."""
    from rich.markup import escape
    from rich.table import Table

    from fewshot_bench.hooks.registry import Registry

    found = Registry.discover().plugins
    if trace is not None:
        _trace(trace, found)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("plugin", "distribution", "version", "status", "offers"):
        table.add_column(column, overflow="fold")
    for plugin in found:
        offers = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in plugin.kinds.items())
        cells = (plugin.name, plugin.distribution, plugin.version, plugin.status)
        table.add_row(*map(escape, (*cells, plugin.error or offers)))
    _print(table)


def _print(table: Table) -> None:
    """On a terminal as wide as it is; in a pipe or file a row is a line."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=1000)
    console.print(table)


def _trace(name: str, found: list[Any]) -> None:
    chosen = [p for p in found if name in (p.name, f"{p.distribution}:{p.name}")]
    if not chosen:
        raise UnknownName("plugin", name, [p.name for p in found], "'fsb plugins' shows them.")
    if not chosen[0].error:
        raise ConfigError(f"plugin '{name}' is not broken; there is no traceback to show.")
    typer.echo(chosen[0].traceback, nl=False)
