"""``fsb eval RUN``."""

from __future__ import annotations

import inspect
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from fewshot_bench.cli.run import parameter
from fewshot_bench.config.resolve import CORE
from fewshot_bench.config.schema import CHANGEABLE, check_part, sampler_options
from fewshot_bench.errors import ConfigError
from fewshot_bench.hooks.single_file import only_typed

# Not taken from the record, which may be a stranger's: where something is written.
PLACES = {"runs_dir": "beside the run, unless given", "cache_dir": "the user's, unless given"}
PART = "the split: test, or validation to choose settings by"
TRUST = "import a file of code that the run's record names"
# What else is typed is an option of data set, method or sampler (--split, --test-steps, ...).
CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True}


def evaluate(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="folder of a run", metavar="RUN", show_default=False)],
    json: Annotated[bool, typer.Option("--json", help="print the record and nothing else")] = False,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="a further score; may be repeated")
    ] = None,
    part: Annotated[str, typer.Option("--part", help=PART)] = "test",
    trust_code: Annotated[bool, typer.Option("--trust-code", help=TRUST)] = False,
    **changes: Any,
) -> None:
    """Evaluate a finished run again: other episodes, another way or shot, or other data.

    What is not given is as in the run. Options of its method and of the data set may follow too.
    """
    if run.startswith("-"):
        raise ConfigError(f"fsb eval: the folder of the run comes first: fsb eval RUN {run} ...")
    check_part(part)
    changes = {name: value for name, value in changes.items() if value is not None}
    with only_typed(changes.values(), trust_code):
        changes |= _further(Path(run), context, changes)
    if metric:
        changes["metric"] = metric
    from fewshot_bench.cli.progress import Progress
    from fewshot_bench.cli.summary import show_record
    from fewshot_bench.runs.evaluate import evaluate_run

    with Progress() as progress, redirect_stdout(sys.stderr) if json else nullcontext():
        record = evaluate_run(run, progress, part=part, trust_code=trust_code, **changes)
    show_record(record, Path(record["config"]["runs_dir"]) / record["id"], as_json=json)


def _further(folder: Path, context: typer.Context, changes: dict[str, Any]) -> dict[str, Any]:
    """The typed options of the run's method, of the data set and of the sampler."""
    if not context.args:
        return {}
    if not context.args[0].startswith("-"):
        raise ConfigError(f"fsb eval takes one run; '{context.args[0]}' is one too many.")
    from fewshot_bench.cli.data import flags_of, parse
    from fewshot_bench.config.options import dataset_options, method_options
    from fewshot_bench.config.resolve import RunConfig
    from fewshot_bench.hooks.registry import Registry
    from fewshot_bench.results.record.io import read_record

    config, registry = RunConfig.from_dict(read_record(folder)["config"]), Registry.discover()
    dataset = changes.get("dataset", config.dataset)
    options = method_options(registry, config.method, config.method_options)
    options += dataset_options(registry, dataset)
    options += sampler_options(registry, changes.get("sampling", config.sampling))
    fixed = {option.flag for option in CORE} - {option.flag for option in options}
    for flag in context.args:
        if flag.partition("=")[0] in fixed:
            raise ConfigError(
                f"fsb eval: {flag} decided the training of the run and stays as it was; "
                "'fsb eval --help' shows what may differ."
            )
    owner = f"fsb eval with {config.method} on {dataset}"
    return parse(context.args, options, owner, flags_of(context))


def _signature() -> inspect.Signature:
    """That of :func:`evaluate` with an option for each setting that may differ."""
    named = inspect.signature(evaluate, eval_str=True).parameters
    core = {option.name: option for option in CORE}
    changeable = [
        parameter(core[name], PLACES.get(name, "As in the run, unless given"))
        for name in CHANGEABLE
    ]
    own = [p for p in named.values() if p.kind is not p.VAR_KEYWORD]
    return inspect.Signature([*own, *changeable], return_annotation=None)


# typer reads either of the two, depending on its version.
_SIGNATURE = _signature()
evaluate.__signature__ = _SIGNATURE  # type: ignore[attr-defined]
evaluate.__annotations__ = {p.name: p.annotation for p in _SIGNATURE.parameters.values()}
