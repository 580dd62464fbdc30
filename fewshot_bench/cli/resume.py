"""``fsb resume RUN``."""

from typing import Annotated, Any

import typer

from fewshot_bench.cli import _dynamic
from fewshot_bench.cli.evaluate import Run, Trust
from fewshot_bench.cli.run import JSON
from fewshot_bench.config.schema import RESUMABLE, SETTINGS
from fewshot_bench.utils.inputs import check_weights

CHANGED = "resume although data, code, versions or kind of device differ; the record gets a note"


def build_command() -> Any:
    options = [_dynamic.parameter(SETTINGS[name], "Default: as in the run") for name in RESUMABLE]
    parameters = [*_dynamic.own_parameters(_resume), *options]
    return _dynamic.make_command("resume", _resume, parameters, _resume.__doc__ or "")


def _resume(
    run: Run,
    allow_changes: Annotated[bool, typer.Option("--allow-changes", help=CHANGED)] = False,
    trust_code: Trust = False,
    json: Annotated[bool, typer.Option("--json", help=JSON)] = False,
    **settings: Any,
) -> None:
    """Resume an interrupted run.

    It continues from its newest complete checkpoint. The result is that of an uninterrupted
    run. A run that is finished stays as it is; without the weights that made its result it is
    refused.
    """
    from fewshot_bench.cli.summary import show_record, show_run
    from fewshot_bench.results.record import folder_of, read_record
    from fewshot_bench.runs.train import resume

    folder = folder_of(run)
    record = read_record(folder)
    if record["status"] == "completed":
        check_weights(folder, record)
        typer.echo(f"'{folder}' is finished; nothing to resume.", err=True)
        if json:
            show_record(record, folder, as_json=True)
        return

    settings |= {"allow_changes": allow_changes, "trust_code": trust_code}
    show_run(lambda progress: (resume(folder, progress=progress, **settings), folder), json)
