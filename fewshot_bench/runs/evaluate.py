"""A trained run on other episodes, another task or other data."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fewshot_bench.runs import build
from fewshot_bench.config.resolve import RunConfig, reconfigure
from fewshot_bench.data.overlap import write_seen
from fewshot_bench.config.presets import as_recorded
from fewshot_bench.engine.inspection import of_weights
from fewshot_bench.engine.checkpointing.signals import Signals
from fewshot_bench.engine.observer import Progress, Silent
from fewshot_bench.engine.weights import check_unmoved, save_weights
from fewshot_bench.hooks.single_file import only_typed
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.runs.context import Parts, describe, prepare, stem
from fewshot_bench.results.record.io import FILE as RECORD
from fewshot_bench.results.record.io import new_run_folder, read_record, write_record
from fewshot_bench.runs.train import test
from fewshot_bench.runs.seen import seen_by_run
from fewshot_bench.config.schema import check_changes, check_part
from fewshot_bench.runs.resume import held_against, load_trained

VALIDATED = "the validation split may have chosen the weights: its accuracy is a little high"


def evaluate_run(
    run_folder: str | Path,
    progress: Progress | None = None,
    *,
    part: str = "test",
    trust_code: bool = False,
    **changes: Any,
) -> dict[str, Any]:
    """Evaluate a finished run's weights again: other episodes, task or data.

    Options of the data set stay as in the run, also on other data of the same kind; see
    :func:`fewshot_bench.config.other_data.kept_options`.

    Arguments:
        run_folder: the folder of a run.
        part: which split: ``test``, or ``validation`` to choose settings by.
        trust_code: import a file that the run's record names, as after ``fsb run ./file.py:Name``.
        changes: options of ``fsb run`` with underscores (``way``, ``episodes``, ``dataset``, ...).

    Returns:
        A record of its own, with ``evaluated_from`` naming the run; also written.

    Raises:
        ConfigError: there is no such part or option, the change is one to what decided the
            training, or the data are others than the network was trained on.
        DataError: classes took part in training, and ``allow_overlap`` is not given.
        PluginError: it was the run's own test again, with other answers.
        FewshotBenchError: a setting, a data file, a plugin or the run is at fault.
    """
    check_part(part)
    check_changes(changes)
    folder = Path(run_folder)
    folder = folder.parent if folder.name == RECORD else folder
    before = read_record(folder)
    with only_typed(_words(changes), trust_code):
        parts, notes = _parts_again(folder, before, progress or Silent(), changes, part)
    config = parts.config
    target = new_run_folder(Path(config.runs_dir), stem(config) + "-eval")
    record = describe(parts, target) | {
        "evaluated_from": before["id"],
        "part": part,
        "evaluated_digest": parts.data.content.digest(part),
    }
    for name in ("training", "training_summary", "validation"):
        record[name] = before[name]
    if part == "validation" and before["training"]:
        notes.append(VALIDATED)
    record["notes"] += [*notes, *(line for line in before["notes"] if of_weights(line))]
    try:
        record["weights"] = save_weights(parts.method, target)
        with Signals() as signals, parts.lowering.running():
            record["seen"] = write_seen(target, parts.seen)
            test(parts, target, record, signals.check)
        check_unmoved(parts.method, record["weights"])
        if told := held_against(folder, before, target, record):
            record["notes"].append(told)
            parts.progress.message(told)
        record["status"] = "completed"
        write_record(target, record)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return record


def _words(changes: Mapping[str, Any]) -> Iterator[Any]:
    """What was typed; lists of names one by one."""
    for value in changes.values():
        yield from value if isinstance(value, list | tuple) else (value,)


def _parts_again(
    folder: Path,
    before: Mapping[str, Any],
    progress: Progress,
    changes: Mapping[str, Any],
    part: str,
) -> tuple[Parts, list[str]]:
    """The parts of a run with its weights, and what a reader has to know of them.

    Where files are written is not the record's to say.
    """
    own = {"init": None, "observers": (), "profile": False, "pictures": False}
    places = {"runs_dir": str(folder.absolute().parent), "cache_dir": None}
    registry = Registry.discover()
    run = RunConfig.from_dict(as_recorded(registry, before))
    config = reconfigure(run, **{**own, **places, **changes})
    build.check_writable(Path(config.runs_dir))
    seen = seen_by_run(folder, run, registry, before)
    parts = prepare(config, progress, train_split=False, seen=seen, part=part)
    notes = load_trained(parts, folder, before)
    for note in notes:
        progress.message(note)
    return parts, notes
