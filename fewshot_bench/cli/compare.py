"""``fsb compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fewshot_bench.errors import ConfigError, RecordError, UnknownName

if TYPE_CHECKING:
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
    from fewshot_bench.results.compare import Comparison, load_runs
    from fewshot_bench.results.compare import compare as compare_runs

    paths = runs or [runs_dir]
    for path in paths:
        if not path.exists():
            raise RecordError(f"there is no '{path}'; run something first: fsb run METHOD")
    found, problems = load_runs(paths)
    errors = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    if not found:
        for problem in problems:
            errors.print(f"left out: {problem}")
        raise RecordError(f"no finished run in '{paths[0]}'; try: fsb run METHOD")
    methods = {run.record["method"] for run in found}
    if baseline is not None and baseline not in methods | {run.record["id"] for run in found}:
        raise UnknownName("baseline", baseline, methods, "Give one of them, or the id of a run.")
    compared = compare_runs(found, baseline)
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
        write_atomically(output, text)


def _show(result: Comparison) -> None:
    from fewshot_bench.results.export import caption, heading

    console = Console()
    for group in result.groups:
        console.print(_table(group, heading(group)))
        if group.differs:
            words = ", ".join(group.differs)
            console.print(f"Apart from the first table because of: {words}.", style="dim")
        console.print(caption(group) + _marks(group), style="dim", highlight=False)
        console.print()


def _table(group: Group, title: str) -> Table:
    from fewshot_bench.results.export import HEADS, body

    rows = body(group)
    # Columns that say nothing here are left out, so that the rest fits.
    shown = [i for i in range(len(HEADS)) if any(row[i] not in ("", "-") for row in rows)]
    table = Table(title=escape(title), title_justify="left", box=None, pad_edge=False)
    for i in shown:
        table.add_column(HEADS[i], justify="left" if i == 0 else "right", no_wrap=i in (1, 2))
    for row, shown_row in zip(group.rows, rows, strict=True):
        paired = row.paired
        better = bool(paired and paired.p_t is not None and paired.p_t < 0.05)
        bold = better and paired is not None and paired.difference > 0
        table.add_row(*(escape(shown_row[i]) for i in shown), style="bold" if bold else "")
    return table


def _marks(group: Group) -> str:
    marked = any(row.run.record["test"]["transductive"] for row in group.rows)
    text = " † transductive: all queries of a task are seen together." if marked else ""
    if group.baseline is not None:
        text += (
            " Bold: better than the baseline, paired t test at 5 %, not corrected for the table."
        )
    return text
