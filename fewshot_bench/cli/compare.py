"""``fsb compare``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fewshot_bench.errors import ConfigError, RecordError

if TYPE_CHECKING:
    from fewshot_bench.results.comparison import Comparison
    from fewshot_bench.results.runs import Run

STYLES = {
    "heading": {"bold": True, "underline": True},
    "head": {"bold": True},
    "bold": {"bold": True},
    "dim": {"dim": True},
}


def compare(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="folders of runs, or folders that hold them")
    ] = None,
    runs_dir: Annotated[Path, typer.Option(help="read if no folder is named")] = Path("runs"),
    baseline: Annotated[
        str | None, typer.Option(help="method or run that the others are compared with, paired")
    ] = None,
    interval: Annotated[
        str | None,
        typer.Option(
            help="what the ± is: student, percentile, bca, classes, hierarchical or seeds; unless "
            "given, student with one training seed and hierarchical with several",
        ),
    ] = None,
    level: Annotated[
        float | None, typer.Option(help="of all intervals; unless given, that of the records")
    ] = None,
    target: Annotated[
        float | None, typer.Option(help="also show the time to this validation accuracy, like 0.95")
    ] = None,
    format: Annotated[
        str, typer.Option(help="terminal, or what 'fsb list exporters' shows")
    ] = "terminal",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="write to a file")] = None,
) -> None:
    """Show methods and settings side by side, grouped by protocol and paired on the same episodes.

    Exit code 2 if something that was named could not be used or compared.
    """
    from fewshot_bench.results.runs import load_runs

    paths = runs or [runs_dir]
    for path in paths:
        if not path.exists():
            raise RecordError(f"there is no '{path}'; run something first: fsb run METHOD")
    found, problems = load_runs(paths)
    if not found:
        for problem in problems[1:]:
            _say(problem)
        raise RecordError(
            f"no finished run in '{paths[0]}' ({problems[0].rstrip('.')}); try: fsb run METHOD"
        )
    show_runs(
        found, problems, baseline=baseline, interval=interval, target=target, format=format,
        output=output, level=level, strict=bool(runs),
    )  # fmt: skip


def show_runs(
    runs: list[Run],
    problems: list[str],
    *,
    baseline: str | None = None,
    interval: str | None = None,
    target: float | None = None,
    format: str = "terminal",
    output: Path | None = None,
    level: float | None = None,
    strict: bool = True,
) -> None:
    """Print a comparison, or write it to a file; what was left out goes to standard error.

    Arguments:
        runs: what to compare.
        problems: a line for each run that could not be read.
        baseline, interval, target, level: see :func:`fewshot_bench.results.compare.compare`.
        format: ``terminal`` or the name of an exporter.
        output: a file for anything but ``terminal``; None: standard output.
        strict: exit with code 2 if something was left out or stands apart.
    """
    from fewshot_bench.results.compare import compare as compare_runs

    if format == "terminal" and output is not None:
        raise ConfigError("-o wants a format for files; give --format markdown, for example.")
    result = compare_runs(
        runs, baseline, level, interval=interval, target=target, ranks=format != "terminal"
    )
    told = [*problems, *result.problems]
    if not result.tables:
        for problem in told[1:]:
            _say(problem)
        raise RecordError(f"none of the runs can be compared: {told[0]}")
    result.problems[:] = told
    if format == "terminal":
        _show(result)
    else:
        _export(result, format, output)
    for problem in told:
        _say(problem)
    if strict and len(result.tables) > 1:
        reasons = "; ".join(dict.fromkeys(", ".join(t.differs) for t in result.tables[1:]))
        typer.echo(f"mixed protocols, {len(result.tables)} tables: {reasons}", err=True)
    if strict and (told or len(result.tables) > 1):
        raise typer.Exit(2)


def _say(problem: str) -> None:
    typer.echo(f"left out: {' '.join(problem.split())}", err=True)


def _export(result: Comparison, format: str, output: Path | None) -> None:
    from fewshot_bench.hooks.registry import Registry
    from fewshot_bench.results.tables import write_atomically

    text = Registry.discover().resolve("exporters", format).load()(result)
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_atomically(output, text, "give another file with --output")


def _show(result: Comparison) -> None:
    from fewshot_bench.results.exporters.terminal import terminal

    def style(text: str, name: str) -> str:
        return typer.style(text, **STYLES[name]) if name else text

    typer.echo(terminal(result, shutil.get_terminal_size().columns, style), nl=False)
