"""``fsb report``."""

from pathlib import Path
from typing import Annotated

import typer

from fewshot_bench.cli import compare
from fewshot_bench.figures import check


def report(
    output: Annotated[Path, typer.Option("-o", "--output", help="folder of the page")],
    runs: compare.Runs = None,
    runs_dir: compare.RunsDir = Path("runs"),
    baseline: compare.Baseline = None,
    interval: compare.Interval = None,
    level: compare.Level = None,
    target: compare.Target = None,
    equal: compare.Equal = None,
    pictures: Annotated[bool, typer.Option(help="draw them, which needs matplotlib")] = True,
) -> None:
    """Write an HTML page of finished runs.

    It has sentences, tables, figures, and how to repeat each run. It opens from disk, in a
    browser, and needs nothing else. Exit code 2 if something that was named could not be used
    or compared.
    """
    from fewshot_bench.report import PAGE, write_report

    if pictures:
        check("learning")  # before anything is read
    found, problems = compare.finished_runs(runs or [runs_dir])
    how = {"baseline": baseline, "interval": interval, "level": level, "target": target}
    result = compare.compared(found, problems, equal, ranks=True, **how)
    for line in write_report(result, output, pictures=pictures):
        typer.echo(line, err=True)
    typer.echo(f"wrote '{output / PAGE}'")
    compare.report_problems(result, strict=bool(runs))
