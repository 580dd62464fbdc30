"""``fsb figure``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fewshot_bench.errors import ConfigError, RecordError
from fewshot_bench.figures import KINDS, Ask
from fewshot_bench.text import one_line

HELP = (
    "Draw finished runs: a picture that goes into a paper as it is.\n\nKinds:\n\n\b\n"
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
    """Draw finished runs: a picture that goes into a paper as it is."""
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
    found, problems = finished_runs(paths)
    ask = Ask(baseline, episode)
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
