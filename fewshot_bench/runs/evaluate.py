"""A finished run's weights on other episodes, another task or other data."""

import logging
import shutil
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from fewshot_bench.config.options import dataset_options, flag, load, split_dataset
from fewshot_bench.config.resolve import check_changes, with_changes
from fewshot_bench.data.overlap import read_seen, write_seen
from fewshot_bench.engine.checkpointing import Signals
from fewshot_bench.engine.inspection import of_weights
from fewshot_bench.engine.weights import check_unmoved, save_weights
from fewshot_bench.errors import ConfigError
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.hooks.single_file import only_typed
from fewshot_bench.results.record import folder_of, new_run_folder, read_record, write_record
from fewshot_bench.runs.context import Progress, RunContext
from fewshot_bench.runs.prepare import check_writable, describe, prepare, stem
from fewshot_bench.runs.resume import add_notes, compare_repeated, load_trained, recorded_config
from fewshot_bench.runs.train import test

logger = logging.getLogger(__name__)

PARTS = ("test", "validation")
VALIDATED = "the validation split may have chosen the weights: its accuracy is a little high"
NOT_AGAIN = {"init": None, "observers": (), "profile": False, "pictures": False}  # of training


def evaluate_run(
    run_folder: str | Path, *, registry: Registry | None = None, progress: Progress | None = None,
    part: str = "test", trust_code: bool = False, **changes: Any,
) -> dict[str, Any]:  # fmt: skip
    """Evaluate a finished run's weights again: other episodes, task or data; a record of its own.

    Options of the data set stay as in the run; see :func:`kept_options`.

    Arguments:
        part: which split: ``test``, or ``validation`` to choose settings by.
        trust_code: import a file that the run's record names, as after ``fsb run ./file.py:Name``.
        changes: fields and options with underscores (``way``, ``episodes``, ``dataset``, ...).

    Raises:
        ConfigError: there is no such part or option, the change is one to what decided the
            training, or the images differ from those that the network was trained on.
        DataError: classes took part in training, and ``allow_overlap`` is not given.
        PluginError: it was the run's own test again, with other scores.
    """
    if part not in PARTS:
        raise ConfigError(f"--part: expected one of {', '.join(PARTS)}, got '{part}'.")
    check_changes(changes)
    folder = folder_of(run_folder)
    before = read_record(folder)
    lists = [v if isinstance(v, list | tuple) else (v,) for v in changes.values()]
    with only_typed(chain.from_iterable(lists), trust_code):
        registry = registry or Registry.discover()
        then = recorded_config(registry, before)
        options = kept_options(registry, then.dataset, then.dataset_options, changes)
        # Where files are written is not the record's to decide.
        fixed = {**NOT_AGAIN, "cache_dir": None, "runs_dir": str(folder.absolute().parent)}
        config = with_changes(then, registry, {**fixed, **changes}, options)
        check_writable(Path(config.runs_dir))
        context = RunContext(config, registry, progress)
        run = prepare(context, trains=False, seen=read_seen(folder, before), part=part)
        notes = load_trained(run, folder, before)
    for note in notes:
        logger.info(note)
    target = new_run_folder(Path(run.config.runs_dir), stem(run.config) + "-eval")
    record = describe(run, target) | {
        "evaluated_from": before["id"],
        "part": part,
        "evaluated_digest": run.context.data.content.digest(part),
    }
    record |= {name: before[name] for name in ("training", "training_summary", "validation")}
    if part == "validation" and before["training"]:
        notes.append(VALIDATED)
    record["notes"] += [*notes, *(line for line in before["notes"] if of_weights(line))]
    try:
        record["weights"] = save_weights(run.method, target)
        with Signals() as signals, run.executor.running():
            record["seen"] = write_seen(target, run.seen)
            test(run, target, record, signals.check)
        check_unmoved(run.method, record["weights"])
        if repeated := compare_repeated(folder, before, target, record):
            add_notes(record, repeated)
        record["status"] = "completed"
        write_record(target, record)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return record


def kept_options(
    registry: Registry, before: str, options: Mapping[str, Any], changes: Mapping[str, Any]
) -> dict[str, Any]:
    """The data options that a run keeps when some settings change.

    The same kind of data set (the same registered name, whatever its path) keeps them all: with
    another split, or another seed of it, classes that trained would be tested. Another kind keeps
    those that decide what an image looks like to the network (``Dataset.image_options``), which
    cannot change: ConfigError.
    """
    after = changes.get("dataset", before)
    own, other = (split_dataset(registry, name)[0] for name in (before, after))
    of_images = set(load(registry, "datasets", own).image_options)
    for name in of_images & options.keys() & changes.keys():
        if changes[name] != options[name]:
            what = f"expected {options[name]}, which the run was trained with, got {changes[name]}"
            raise ConfigError(f"{flag(name)}: {what}; leave it out.")
    one, two = (registry.resolve("datasets", name) for name in (own, other))
    if (one.distribution, one.name) == (two.distribution, two.name):
        return dict(options)
    of_images &= set(load(registry, "datasets", other).image_options) & options.keys()
    kept = [option for option in dataset_options(registry, after) if option.name in of_images]
    try:
        return {option.name: option.check(options[option.name]) for option in kept}
    except ConfigError as error:
        cannot = f"--dataset {after} cannot have the image format of the run"
        raise ConfigError(f"{cannot}: {error}") from error
