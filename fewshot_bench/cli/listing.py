"""``fsb list`` and ``fsb plugins``."""

import os
import traceback
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

from fewshot_bench.cli import commands
from fewshot_bench.errors import ConfigError, FewshotBenchError, UnknownName
from fewshot_bench.hooks.registry import KINDS, PluginInfo, Registry
from fewshot_bench.utils.text import one_line

OF_WHAT = "methods, datasets, backbones, samplers, metrics, observers or exporters"
TRACE = "show the traceback of a broken plugin, or of something that it registers"


def list_names(
    kind: Annotated[str, typer.Argument(help=OF_WHAT, metavar="KIND", show_default=False)] = "",
) -> None:
    """List what is installed, by kind and distribution."""
    if not kind:
        raise ConfigError(f"fsb list: expected one of {', '.join(KINDS)}; e.g. fsb list methods.")
    if kind not in KINDS:
        raise UnknownName("kind", kind, KINDS, "For example: fsb list methods")
    found = Registry.discover().typed(kind)
    rows = [(name, item.distribution, item.version, item.target) for name, item in found]
    _print(("name", "distribution", "version", "from"), rows, "ellipsis")


def plugins(
    trace: Annotated[str | None, typer.Option("--trace", metavar="NAME", help=TRACE)] = None,
) -> None:
    """Show installed plugins and their errors."""
    registry = Registry.discover()
    found = [*registry.plugins, *commands.rows()]
    if trace is not None:
        _trace(trace, found, registry)
        return
    rows = []
    for plugin in found:
        offers = [", ".join(names) for names in plugin.kinds.values()]
        details = plugin.error or "; ".join(filter(None, (*offers, plugin.note)))
        kinds = "; ".join(plugin.kinds) or "-"
        cells = (plugin.name, plugin.distribution, plugin.version, kinds, plugin.status, details)
        rows.append([one_line(cell) for cell in cells])
    columns = ("name", "distribution", "version", "kind", "status", "offers, or what is wrong")
    _print(columns, rows, "fold")


def _print(columns: Sequence[str], rows: Iterable[Sequence[str]], overflow: Any) -> None:
    """On a terminal as wide as it is; in a pipe or file a row is a line."""
    from fewshot_bench.cli._console import screen, table_of

    table = table_of(columns, rows, overflow)
    console = screen()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = screen(width=1000)
    console.print(table)


def _trace(name: str, found: list[PluginInfo], registry: Registry) -> None:
    """The traceback of a plugin, or of loading what it registered under this name."""
    chosen = [p for p in found if name in (p.name, f"{p.distribution}:{p.name}", p.distribution)]
    if broken := [p.traceback for p in chosen if p.error]:
        typer.echo("".join(broken), nl=False)
        return
    offered = [item for kind in KINDS for item in registry.claims(kind, name)]
    for item in offered:
        try:
            item.load()
        except FewshotBenchError as error:
            typer.echo("".join(traceback.format_exception(error)), nl=False)
            return
    if not chosen and not offered:
        names = {p.name for p in found}.union(*(registry.names(kind) for kind in KINDS))
        raise UnknownName("plugin", name, names, "'fsb plugins' shows them.")
    raise ConfigError(f"plugin '{name}' is not broken; there is no traceback to show.")
