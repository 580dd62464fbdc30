"""``fsb resume RUN``."""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from fewshot_bench.cli.evaluate import TRUST


def resume(
    run: Annotated[str, typer.Argument(help="folder of a run", metavar="RUN", show_default=False)],
    allow_changes: Annotated[
        bool,
        typer.Option(
            "--allow-changes",
            help="go on although data, code or versions are others; the record has a note of it",
        ),
    ] = False,
    trust_code: Annotated[bool, typer.Option("--trust-code", help=TRUST)] = False,
    data_root: Annotated[
        str | None, typer.Option(help="where the data lie now", show_default=False)
    ] = None,
    cache_dir: Annotated[
        str | None, typer.Option(help="for decoded images", show_default=False)
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="where to go on; a run that began on another kind needs --allow-changes",
            show_default=False,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="print the record and nothing else")] = False,
) -> None:
    """Go on with a run that was interrupted or killed, from its newest whole checkpoint.

    The result is that of a run that was never interrupted. A run that is finished stays as it is;
    without the weights that made its result it is refused.
    """
    from fewshot_bench.results.record.io import FILE, read_record

    folder = Path(run)
    folder = folder.parent if folder.name == FILE else folder
    record = read_record(folder)
    if record["status"] == "completed":
        from fewshot_bench.runs.resume import finished

        finished(folder, record)
        typer.echo(f"'{folder}' is finished: there is nothing to go on with", err=True)
        if json:
            sys.stdout.write((folder / FILE).read_text("utf-8"))
        return
    from fewshot_bench.cli.progress import Progress
    from fewshot_bench.cli.summary import show_record
    from fewshot_bench.runs.train import resume as resume_run

    here = {"data_root": data_root, "device": device}
    with Progress() as progress, redirect_stdout(sys.stderr) if json else nullcontext():
        record = resume_run(
            folder,
            progress,
            allow_changes=allow_changes,
            trust_code=trust_code,
            cache_dir=cache_dir,
            **{name: value for name, value in here.items() if value is not None},
        )
    show_record(record, folder, as_json=json)
