"""From a trainer and scores to the parts of a run's record and its tables."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from fewshot_bench.engine.evaluation import Metric, Scores, higher_is_better
from fewshot_bench.engine.training import Trainer
from fewshot_bench.episode import Task
from fewshot_bench.results.record import model
from fewshot_bench.results.record.tables import write_table
from fewshot_bench.results.stats import class_use, student_interval, use_words
from fewshot_bench.sampling.base import EpisodeSource
from fewshot_bench.utils.devices import HostClock, clock_of, peak_memory


def task_counts(task: Task) -> dict[str, int]:
    """The record's ``task``."""
    return {name: getattr(task, name) for name in model.Task.__struct_fields__}


def note_training(record: dict[str, Any], trainer: Trainer) -> None:
    """Fill in the record's ``training``, ``validation``, ``timing`` and ``notes``."""
    history, timing = trainer.history, record["timing"]
    record["training"] = model.Training(
        steps=trainer.step,
        seconds=history.seconds,
        warmup_seconds=history.warmup_seconds,
        engine=trainer.executor.name,
        chunks=trainer.executor.calls(trainer.plan.task_batch),
        skipped_steps=len(trainer.guard.skipped) if trainer.guard is not None else 0,
    ).to_dict()
    record["notes"] = list(dict.fromkeys([*record["notes"], *_training_notes(trainer)]))
    best = dict(history.validation).get(history.best_step)
    record["validation"] = model.Validation(best_step=history.best_step, accuracy=best).to_dict()
    timing |= trainer.timer.summary(trainer.plan.task_batch * len(trainer.method.turns))
    if timing["step_ms"] and timing["flops_per_step"]:
        timing["flops_per_s"] = timing["flops_per_step"] / timing["step_ms"]["median"] * 1e3
    timing["peak_memory_bytes"] = peak_memory(trainer.device)
    clock = trainer.timer.clock.name
    timing["clocks"] = {"step_ms": clock, "phases": clock, "training.seconds": HostClock.name}


def _training_notes(trainer: Trainer) -> list[str]:
    """What a reader has to know of steps that were not taken as planned."""
    notes = []
    if step := trainer.history.shrunk_at:
        chunks = trainer.executor.calls(trainer.plan.task_batch)
        notes.append(
            f"memory was short: from step {step} on the tasks of a step were run in {chunks} "
            "chunks, which gives the same gradient"
        )
    if trainer.history.unkeyed:
        notes.append(trainer.history.unkeyed)
    if trainer.guard is not None and (skipped := trainer.guard.skipped):
        notes.append(
            f"{len(skipped)} of {trainer.step} steps were skipped as spikes (--skip-spikes "
            f"{trainer.guard.factor:g}), the first in step {skipped[0]}"
        )
    return notes


def write_training(folder: Path, trainer: Trainer) -> None:
    """Write steps.csv and validation.csv."""
    columns: dict[str, Any] = trainer.history.steps.arrays()
    if "step" in columns:
        columns["step"] = columns["step"].astype(np.int64)
    steps = len(trainer.history.steps)
    times = {name: ms[:steps] for name, ms in trainer.timer.columns().items()}
    write_table(folder / "steps.csv", columns | times)
    curve = trainer.history.validation
    columns = {"step": [step for step, _ in curve], "accuracy": [value for _, value in curve]}
    write_table(folder / "validation.csv", columns)


def note_evaluation(
    record: dict[str, Any], scores: Scores, level: float, transductive: bool, source: EpisodeSource,
    metrics: Mapping[str, Metric],
) -> None:  # fmt: skip
    """Fill in the times and, of the split that the record's ``part`` names, the result."""
    result = result_of(scores, level, transductive, source, metrics)
    best = {"best_step": (record["validation"] or {}).get("best_step")}
    record[record["part"]] = result if record["part"] == model.TEST else best | result
    words = use_words(result["class_use"], source.sampler.sampling)
    record["notes"] += [words] if words and words not in record["notes"] else []
    clock = clock_of(source.table.device).name
    record["timing"] |= {
        "adapt_ms": float(np.nanmedian(scores.adapt_ms)),
        "predict_ms": float(np.nanmedian(scores.predict_ms)),
        "timed_episodes": int(np.isfinite(scores.adapt_ms).sum()),
        "peak_memory_bytes": peak_memory(source.table.device),
        "clocks": {**(record["timing"]["clocks"] or {}), "adapt_ms": clock, "predict_ms": clock},
    }


def result_of(
    scores: Scores, level: float, transductive: bool, source: EpisodeSource,
    metrics: Mapping[str, Metric] = MappingProxyType({}),
) -> dict[str, Any]:  # fmt: skip
    """The record's ``test`` or ``validation``: accuracy with its interval, and the protocol."""
    interval = student_interval(scores.accuracy, level)
    groups = source.table.group_count.cpu().numpy()
    found: dict[str, model.Metric] = {}
    for name, values in scores.metrics.items():
        metric = model.Metric(None, None, higher_is_better(metrics[name]))
        if np.isfinite(values).all():
            own = student_interval(values, level)
            metric.mean, metric.half_width = own.mean, own.half_width
        found[name] = metric
    return model.Result(
        accuracy=interval.mean,
        half_width=interval.half_width,
        level=level,
        interval=[interval.low, interval.high],
        episodes=interval.n,
        per_episode_sd=interval.sd,
        transductive=transductive,
        sampling=source.sampler.sampling,
        metrics=found,
        class_use=model.ClassUse(**class_use(scores.class_ids, groups)),
    ).to_dict()


def write_scores(folder: Path, scores: Scores, group_count: npt.NDArray[np.int64]) -> None:
    """Write episodes.csv and confusion.csv.

    Rotations of one character share their images, so an interval for new classes counts them once:
    ``group_count`` is how many classes each group has, group after group.
    """
    way = range(scores.class_ids.shape[1])
    classes = {f"class_{c}": scores.class_ids[:, c] for c in way}
    if (group_count > 1).any():
        group = np.repeat(np.arange(len(group_count)), group_count)
        classes |= {f"group_{c}": group[scores.class_ids[:, c]] for c in way}
    columns = {"episode": np.arange(len(scores.accuracy)), "accuracy": scores.accuracy}
    times = {"adapt_ms": scores.adapt_ms, "predict_ms": scores.predict_ms}
    write_table(folder / "episodes.csv", {**columns, **scores.metrics, **times, **classes})
    places = scores.confusion.nonzero()
    table = dict(zip(("episode", "target", "predicted"), places, strict=True))
    write_table(folder / "confusion.csv", table | {"count": scores.confusion[places]})
