"""``fsb figure``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fewshot_bench.errors import ConfigError, RecordError
from fewshot_bench.figures import KINDS, Request
from fewshot_bench.utils.text import one_line

if TYPE_CHECKING:
    from fewshot_bench.results.runs import Run

HELP = (
    "Draw finished runs: a picture that goes into a paper as it is. A run without "
    "the weights that it wrote is refused.\n\nKinds:\n\n\b\n"
    + "\n".join(f"  {name:<10} {kind.sentence}" for name, kind in KINDS.items())
    + "\n\nNeeds matplotlib: pip install 'fewshot-bench[figures]'"
)


def figure(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="of picture: see above")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="the picture: a .png, .pdf or .svg file")
    ],
    runs: Annotated[
        list[Path] | None, typer.Argument(help="folders of runs, or folders that hold them")
    ] = None,
    runs_dir: Annotated[Path, typer.Option(help="read if no folder is named")] = Path("runs"),
    baseline: Annotated[
        str | None, typer.Option(help="forest: method or run that the others are compared with")
    ] = None,
    episode: Annotated[
        int | None, typer.Option(help="confusion: number of a test episode; default: the hardest")
    ] = None,
) -> None:
    """Draw finished runs that still have their weights."""
    from fewshot_bench.cli.compare import finished_runs
    from fewshot_bench.figures import check, draw, save

    check(kind, output)
    for name, value in (("baseline", baseline), ("episode", episode)):
        if value is not None and name != KINDS[kind].uses:
            raise ConfigError(f"--{name}: '{kind}' does not go by it; leave it out.")
    paths = runs or [runs_dir]
    for path in paths:
        if not path.exists():
            raise RecordError(f"there is no '{path}'; run something first: fsb run METHOD")
    finished, problems = finished_runs(paths)
    found, without = _with_weights(finished)
    if finished and not found:
        raise RecordError(without[0])
    problems += without
    ask = Request(baseline, episode)
    if not found:
        why = f" ({problems[0].rstrip('.')})" if problems else ""
        raise RecordError(f"no finished run in '{paths[0]}'{why}; try: fsb run METHOD")
    try:
        save(draw(kind, found, ask), output)
    finally:
        for problem in [*problems, *ask.left_out]:
            print(f"left out: {one_line(problem)}", file=sys.stderr)
    if problems and runs:
        raise typer.Exit(2)


def _with_weights(runs: list[Run]) -> tuple[list[Run], list[str]]:
    """The runs whose weights file is the one that they wrote, and a line for each other.

    A picture leaves the folder that it was drawn from; what it shows can be evaluated again.
    """
    from fewshot_bench.utils.inputs import check_weights

    found, problems = [], []
    for run in runs:
        try:
            check_weights(run.folder, run.record)
        except RecordError as error:
            problems.append(str(error))
        else:
            found.append(run)
    return found, problems
