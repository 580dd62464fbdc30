"""fewshot-bench: a plugin-based few-shot learning benchmark.

``fewshot_bench.run("metagan", dataset="omniglot", way=5, shot=5)`` does what the command line does
and returns the record that it writes. What plugin authors need is importable from here; nothing
below imports torch until it is used.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from fewshot_bench.errors import ConfigError
from fewshot_bench.hooks.specs import hookimpl
from fewshot_bench.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from fewshot_bench.data.images import Dataset, LabeledImages, Splits
    from fewshot_bench.episode import Episode, Support, Task, UnlabeledEpisode, UnlabeledSupport
    from fewshot_bench.method import Losses, Method, Player, Preset, Without, cosine, halving
    from fewshot_bench.sampling.base import Sampler
    from fewshot_bench.utils.inputs import InputFile

__all__ = [
    "Dataset", "Episode", "InputFile", "LabeledImages", "Losses", "Method", "Player", "Preset",
    "Sampler", "Splits", "Support", "Task", "UnlabeledEpisode", "UnlabeledSupport", "Without",
    "__version__", "cosine", "evaluate", "halving", "hookimpl", "resume", "run",
]  # fmt: skip

_lazy = lazy_exports(
    __name__,
    episode="Episode Support Task UnlabeledEpisode UnlabeledSupport",
    method="Losses Method Player Preset Without cosine halving",
    **{
        "data.images": "Dataset LabeledImages Splits",
        "sampling.base": "Sampler",
        "utils.inputs": "InputFile",
    },
)


def run(method: str | None = None, /, **settings: Any) -> dict[str, Any]:
    """Train, test and record.

    Arguments:
        method: name of a method, as ``fsb list methods`` shows it; may be given by name.
        settings: options of ``fsb run``, each named as its flag with underscores:
            ``--inner-lr 0.1`` is ``inner_lr=0.1``, ``--no-first-order`` is ``first_order=False``,
            ``--with`` is ``with_``; one that may be repeated takes a name or a list
            (``metric=["accuracy", "f1"]``). ``if_exists`` is ``"fresh"`` unless given: every call
            is a run of its own.

    Returns:
        The record, as written to ``runs_dir/<id>/record.json``. Its keys are in docs/record.md.

    Raises:
        FewshotBenchError: a setting, a data file or a plugin is at fault, or training diverged.
    """
    from fewshot_bench.config.resolve import configure
    from fewshot_bench.hooks.registry import Registry
    from fewshot_bench.runs.context import RunContext
    from fewshot_bench.runs.train import run_or_reuse

    if method is not None and "method" in settings:
        raise ConfigError(f"run: the method is given twice, {method} and {settings['method']}.")
    method = settings.pop("method", method)
    if not isinstance(method, str):
        raise ConfigError(
            "run: expected the name of a method first, as in run('protonet', way=5); "
            "'fsb list methods' shows them."
        )
    if_exists = settings.pop("if_exists", "fresh")
    registry = Registry.discover()
    config = configure(method, registry, **settings)
    return run_or_reuse(RunContext(config, registry), if_exists)[0]


def resume(
    run_folder: str, *, allow_changes: bool = False, trust_code: bool = False, **here: Any
) -> dict[str, Any]:
    """Resume a run that was interrupted or killed, from its newest complete checkpoint.

    Arguments:
        run_folder: the folder of a run.
        allow_changes: resume although data, code or versions differ from those at its start.
        trust_code: import a file that the run's record names.
        here: of this machine, in place of what the run began with: ``data_root``, ``cache_dir``,
            ``device``, ``checkpoint_every``, ``keep_checkpoints``.

    Returns:
        The record: but for times, that of a run that was never interrupted.

    Raises:
        FewshotBenchError: there is no such run, or it cannot be resumed.
    """
    from fewshot_bench.runs.train import resume as resume_run

    _require_folder("resume", run_folder)
    return resume_run(run_folder, allow_changes=allow_changes, trust_code=trust_code, **here)


def evaluate(run_folder: str, **changes: Any) -> dict[str, Any]:
    """Evaluate a run's weights on other episodes, another task or other data: a new record.

    Arguments:
        run_folder: the folder of a run that :func:`run` or ``fsb run`` wrote.
        changes: options of ``fsb eval``, named as in :func:`run`: ``part="validation"``.
    """
    from fewshot_bench.config.resolve import to_fields
    from fewshot_bench.runs.evaluate import evaluate_run

    _require_folder("evaluate", run_folder)
    hint = "See 'fsb eval --help'."
    return evaluate_run(run_folder, **to_fields(changes, hint, ("metric", "part", "trust_code")))


def _require_folder(call: str, given: object) -> None:
    """Raise ConfigError for what is no path, such as the record that a run returned."""
    if not isinstance(given, (str, os.PathLike)):
        message = f"{call}: give the folder of a run, a path"
        if isinstance(given, dict):
            message += ", and not its record; its folder is runs_dir/<id>, in 'runs' unless chosen"
        raise ConfigError(f"{message}.")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("fewshot-bench")
    return _lazy(name)
