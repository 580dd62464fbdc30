"""``fsb compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fewshot_bench.errors import ConfigError, RecordError, UnknownName

if TYPE_CHECKING:
    from rich.table import Table

    from fewshot_bench.results.compare import Comparison, Group


def compare(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="folders of runs, or folders that hold them")
    ] = None,
    runs_dir: Annotated[Path, typer.Option(help="read if no folder is named")] = Path("runs"),
    baseline: Annotated[
        str | None, typer.Option(help="method or run that the others are compared with, paired")
    ] = None,
    format: Annotated[
        str, typer.Option(help="terminal, or what 'fsb list exporters' shows")
    ] = "terminal",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="write to a file")] = None,
) -> None:
    """Show runs side by side, grouped by protocol, and paired on the same episodes."""
    from rich.console import Console

    from fewshot_bench.results.compare import Comparison, load_runs
    from fewshot_bench.results.compare import compare as compare_runs

    paths = runs or [runs_dir]
    for path in paths:
        if not path.exists():
            raise RecordError(f"there is no '{path}'; run something first: fsb run METHOD")
    found, problems = load_runs(paths)
    errors = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    if not found:
        for problem in problems[1:]:
            errors.print(f"left out: {problem}")
        raise RecordError(
            f"no finished run in '{paths[0]}' ({problems[0].rstrip('.')}); try: fsb run METHOD"
        )
    methods = {run.record["method"] for run in found}
    if baseline is not None and baseline not in methods | {run.record["id"] for run in found}:
        raise UnknownName("baseline", baseline, methods, "Give one of them, or the id of a run.")
    compared = compare_runs(found, baseline, ranks=format != "terminal")
    result = Comparison(compared.groups, problems + compared.problems)
    if format == "terminal":
        if output is not None:
            raise ConfigError("-o wants a format for files; give --format markdown, for example.")
        _show(result)
    else:
        _export(result, format, output)
    for problem in result.problems:
        errors.print(f"left out: {problem}")
    if problems and runs:
        raise typer.Exit(2)


def _export(result: Comparison, format: str, output: Path | None) -> None:
    from fewshot_bench.hooks.registry import Registry
    from fewshot_bench.results.tables import write_atomically

    text = Registry.discover().resolve("exporters", format).load()(result)
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_atomically(output, text, "give another file with --output")


def _show(result: Comparison) -> None:
    from rich.console import Console

    from fewshot_bench.results.export import apart, caption, heading

    console = Console()
    for group in result.groups:
        table, dropped = _table(group, heading(group), console.width)
        console.print(table)
        words = [*apart(group), caption(group)]
        if dropped:
            words.append(
                f"No room for: {', '.join(dropped)}; a wider terminal or --format csv has them."
            )
        console.print(" ".join(words), style="dim", highlight=False, markup=False)
        console.print()


# What goes first where the terminal is narrow. Never the method, its accuracy and difference.
DROPPED = ("k weights", "peak MB", "classify ms", "train s", "learn ms", "tasks/s", "step ms")
GAP = 2  # between columns


def _table(group: Group, title: str, width: int) -> tuple[Table, list[str]]:
    """The table in ``width`` characters, and the columns that found no room."""
    from rich.markup import escape
    from rich.table import Table

    from fewshot_bench.results.export import filled

    heads, rows = filled(group)
    widths = {
        head: max(len(head), *(len(row[i]) for row in rows)) + GAP for i, head in enumerate(heads)
    }
    dropped = []
    for head in DROPPED:
        if sum(widths.values()) - GAP <= width:
            break
        if widths.pop(head, None):
            dropped.append(head)
    table = Table(title=escape(title), title_justify="left", box=None, pad_edge=False)
    for head in widths:
        left = head == heads[0]
        table.add_column(
            head, justify="left" if left else "right", no_wrap=not left, overflow="fold"
        )
    shown = [i for i, head in enumerate(heads) if head in widths]
    for row, texts in zip(group.rows, rows, strict=True):
        style = "bold" if row is group.winner else ""
        table.add_row(*(escape(texts[i]) for i in shown), style=style)
    return table, dropped
