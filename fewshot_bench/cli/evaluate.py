"""``fsb eval RUN``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def evaluate(
    run: Annotated[Path, typer.Argument(help="folder of a run")],
    dataset: Annotated[str | None, typer.Option(help="another data set")] = None,
    split: Annotated[str | None, typer.Option(help="another split")] = None,
    way: Annotated[int | None, typer.Option(help="classes of an episode")] = None,
    shot: Annotated[int | None, typer.Option(help="support images per class")] = None,
    query: Annotated[int | None, typer.Option(help="query images per class")] = None,
    episodes: Annotated[int | None, typer.Option(help="test episodes")] = None,
    episode_seed: Annotated[int | None, typer.Option(help="of the test episodes")] = None,
    sampling: Annotated[str | None, typer.Option(help="closed or open")] = None,
    within_family: Annotated[
        bool | None, typer.Option("--within-family/--no-within-family", help="one alphabet")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N")] = None,
    data_root: Annotated[str | None, typer.Option(help="folder of the data set's files")] = None,
    runs_dir: Annotated[str | None, typer.Option(help="where the new record is written")] = None,
    json: Annotated[bool, typer.Option("--json", help="print the record and nothing else")] = False,
) -> None:
    """Evaluate a finished run again: other episodes, another way or shot, or other data."""
    changes: dict[str, Any] = {
        name: value
        for name, value in locals().items()
        if name not in ("run", "json") and value is not None
    }
    from fewshot_bench.cli.progress import Progress
    from fewshot_bench.cli.summary import show_record
    from fewshot_bench.runner import evaluate_run

    with Progress() as progress:
        record = evaluate_run(run, progress, **changes)
    show_record(record, record["config"]["runs_dir"], as_json=json)
