"""``fsb eval RUN``: a command for each finished run, built when it is named."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fewshot_bench.cli import _dynamic
from fewshot_bench.cli.run import JSON
from fewshot_bench.config.options import dataset_options, method_options
from fewshot_bench.config.resolve import check_changes, sampler_options
from fewshot_bench.config.schema import CHANGEABLE, SETTINGS, RunConfig
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.hooks.single_file import only_typed

Run = Annotated[str, typer.Argument(help="folder of a run", metavar="RUN", show_default=False)]
Trust = Annotated[
    bool, typer.Option("--trust-code", help="import a file of code that the run's record names")
]
# Not taken from the record, which may be a stranger's: where something is written.
PLACES = {"runs_dir": "Default: beside the run", "cache_dir": "Default: the user's"}


def build_command(arguments: Sequence[str], registry: Registry) -> Any:

    def options(values: Mapping[str, Any]) -> _dynamic.Parameters:
        panels = [(SETTINGS[n], PLACES.get(n, "Default: as in the run")) for n in CHANGEABLE]
        if run := values.get("run"):
            panels += [(option, "Of this run") for option in _own(run, values, registry)]
        return [_dynamic.parameter(option, panel) for option, panel in panels]

    command = _dynamic.build("eval", _evaluate, registry, arguments, options, "run")
    words = {word.partition("=")[0] for word in arguments}
    refused = {n for n, o in SETTINGS.items() if n not in CHANGEABLE and o.flag in words}
    check_changes(n for n in SETTINGS if n in refused - {p.name for p in command.params})
    return command


def _own(run: str, values: Mapping[str, Any], registry: Registry) -> list[Any]:
    """The options of the run's method, of the data set and of the sampler."""
    from fewshot_bench.results.record import folder_of, read_record

    with only_typed(values.values(), bool(values.get("trust_code"))):
        config = RunConfig.from_dict(read_record(folder_of(run))["config"])
        found = method_options(registry, config.method, config.method_options)
        found += dataset_options(registry, values.get("dataset", config.dataset))
        return found + sampler_options(registry, values.get("sampling", config.sampling))


def _evaluate(
    registry: Registry,
    changes: Mapping[str, Any],
    /,
    run: Run,
    part: Annotated[
        str, typer.Option(help="the split: test, or validation to choose settings by")
    ] = "test",
    json: Annotated[bool, typer.Option("--json", help=JSON)] = False,
    trust_code: Trust = False,
) -> None:
    """Evaluate a finished run on other episodes.

    Way, shot, data and other settings may change too. What is not given is as in the run.
    Options of its method and of the data set may follow too.
    """
    from fewshot_bench.cli.summary import show_run
    from fewshot_bench.runs.evaluate import evaluate_run

    def made(progress: Any) -> tuple[dict[str, Any], Path]:
        how: dict[str, Any] = {"progress": progress, "part": part, "trust_code": trust_code}
        record = evaluate_run(run, registry=registry, **how, **changes)
        return record, Path(record["config"]["runs_dir"]) / record["id"]

    show_run(made, json)
