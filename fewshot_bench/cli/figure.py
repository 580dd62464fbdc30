"""``fsb figure``."""

from pathlib import Path
from typing import Annotated

import typer

from fewshot_bench.cli.compare import Runs, RunsDir, finished_runs, left_out
from fewshot_bench.errors import ConfigError, RecordError
from fewshot_bench.figures import KINDS, Request, check, draw, save
from fewshot_bench.utils.inputs import check_weights

HELP = (
    "Draw figures of finished runs.\n\nA run without the weights that it wrote is refused."
    "\n\nKinds:\n\n\b\n"
    + "\n".join(f"  {name:<10} {kind.sentence}" for name, kind in KINDS.items())
    + "\n\nNeeds matplotlib: pip install 'fewshot-bench[figures]'"
)


def figure(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="of picture: see above")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="the picture: a .png, .pdf or .svg file")
    ],
    runs: Runs = None,
    runs_dir: RunsDir = Path("runs"),
    baseline: Annotated[
        str | None, typer.Option(help="forest: method or run that the others are compared with")
    ] = None,
    episode: Annotated[
        int | None, typer.Option(help="confusion: number of a test episode; default: the hardest")
    ] = None,
) -> None:
    """Draw finished runs that still have their weights."""
    check(kind, output)
    for name, value in (("baseline", baseline), ("episode", episode)):
        if value is not None and name != KINDS[kind].uses:
            raise ConfigError(f"--{name}: '{kind}' does not go by it; leave it out.")
    finished, problems = finished_runs(runs or [runs_dir])
    found, ask = [], Request(baseline, episode)
    # A picture leaves the folder that it was drawn from; what it shows can be evaluated again.
    for run in finished:
        try:
            check_weights(run.folder, run.record)
            found.append(run)
        except RecordError as error:
            problems.append(str(error))
    if not found:
        raise RecordError(problems[-len(finished)])
    try:
        save(draw(kind, found, ask), output)
    finally:
        left_out([*problems, *ask.left_out])
    if problems and runs:
        raise typer.Exit(2)
