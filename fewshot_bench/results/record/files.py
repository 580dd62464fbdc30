"""From a trainer and scores to a run's record and its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fewshot_bench.engine.evaluation import Scores
from fewshot_bench.engine.training import Trainer
from fewshot_bench.episode import Task
from fewshot_bench.results.stats.class_use import class_use, use_words
from fewshot_bench.results.stats.tests import student_interval
from fewshot_bench.results.tables import write_table
from fewshot_bench.sampling.base import EpisodeSource
from fewshot_bench.utils.devices import HostClock, clock_of, peak_memory


def task_numbers(task: Task) -> dict[str, int]:
    """The counts of a task, as the record holds them."""
    names = ("way", "shot", "query", "unlabeled", "distractors")
    return {name: getattr(task, name) for name in names}


def empty_timing() -> dict[str, Any]:
    """The record's ``timing`` before anything was timed."""
    return {"interruptions": 0} | dict.fromkeys(
        (
            "step_ms",
            "tasks_per_s",
            "phases",
            "warmup_steps",
            "adapt_ms",
            "predict_ms",
            "timed_episodes",
            "memory_estimate_bytes",
            "peak_memory_bytes",
            "flops_per_step",
            "flops_per_s",
            "clocks",
        )
    )


def note_training(record: dict[str, Any], trainer: Trainer) -> None:
    """Fill the record's ``training``, ``validation`` and ``timing`` from a trainer."""
    history, timing = trainer.history, record["timing"]
    record["training"] = {
        "steps": trainer.step,
        "seconds": history.seconds,
        "warmup_seconds": history.warmup_seconds,
        "engine": trainer.lowering.name,
        "chunks": trainer.lowering.parts(trainer.plan.task_batch),
        "skipped_steps": len(trainer.guard.skipped) if trainer.guard is not None else 0,
    }
    record["notes"] = list(dict.fromkeys([*record["notes"], *_training_notes(trainer)]))
    best = dict(history.validation).get(history.best_step)
    record["validation"] = {"best_step": history.best_step, "accuracy": best}
    turns = len(trainer.method.turns)
    timing |= trainer.timer.summary(trainer.plan.task_batch * turns)
    if timing["step_ms"] and timing["flops_per_step"]:
        timing["flops_per_s"] = timing["flops_per_step"] / timing["step_ms"]["median"] * 1e3
    timing["peak_memory_bytes"] = peak_memory(trainer.device)
    timing["clocks"] = {
        "step_ms": trainer.timer.clock.name,
        "phases": trainer.timer.clock.name,
        "training.seconds": HostClock.name,
    }


def _training_notes(trainer: Trainer) -> list[str]:
    """What a reader has to know of steps that were not taken as planned."""
    told = []
    if at := trainer.history.shrunk_at:
        chunks = trainer.lowering.parts(trainer.plan.task_batch)
        told.append(
            f"memory was short: from step {at} on the tasks of a step were run in {chunks} chunks, "
            "which gives the same gradient"
        )
    if trainer.history.drawn:
        told.append(trainer.history.drawn)
    if trainer.guard is not None and trainer.guard.skipped:
        count, first = len(trainer.guard.skipped), trainer.guard.skipped[0]
        told.append(
            f"{count} of {trainer.step} steps were skipped as spikes (--skip-spikes "
            f"{trainer.guard.factor:g}), the first in step {first}"
        )
    return told


def write_training(folder: Path, trainer: Trainer) -> None:
    """steps.csv and validation.csv."""
    columns: dict[str, Any] = trainer.history.steps.arrays()
    if "step" in columns:
        columns["step"] = columns["step"].astype(np.int64)
    steps = len(trainer.history.steps)
    times = {name: ms[:steps] for name, ms in trainer.timer.columns().items()}
    write_table(folder / "steps.csv", columns | times)
    write_table(
        folder / "validation.csv",
        {
            "step": [step for step, _ in trainer.history.validation],
            "accuracy": [accuracy for _, accuracy in trainer.history.validation],
        },
    )


def note_evaluation(
    record: dict[str, Any],
    scores: Scores,
    level: float,
    transductive: bool,
    source: EpisodeSource,
) -> None:
    """Fill in the times and, of the split that the record's ``part`` names, the result."""
    result = result_of(scores, level, transductive, source)
    before = record["validation"] or {}
    best = {"best_step": before.get("best_step")}
    record[record["part"]] = result if record["part"] == "test" else best | result
    words = use_words(result["class_use"], source.sampler.sampling)
    record["notes"] += [words] if words and words not in record["notes"] else []
    record["timing"] |= {
        "adapt_ms": float(np.nanmedian(scores.adapt_ms)),
        "predict_ms": float(np.nanmedian(scores.predict_ms)),
        "timed_episodes": int(np.isfinite(scores.adapt_ms).sum()),
        "peak_memory_bytes": peak_memory(source.table.device),
        "clocks": (record["timing"].get("clocks") or {})
        | dict.fromkeys(("adapt_ms", "predict_ms"), clock_of(source.table.device).name),
    }


def result_of(
    scores: Scores, level: float, transductive: bool, source: EpisodeSource
) -> dict[str, Any]:
    """The record's ``test`` or ``validation``: accuracy with its interval, and the protocol."""
    interval = student_interval(scores.accuracy, level)
    extra = {name: _interval_or_none(values, level) for name, values in scores.metrics.items()}
    return {
        "accuracy": interval.mean,
        "half_width": interval.half_width,
        "level": level,
        "interval": [interval.low, interval.high],
        "episodes": interval.n,
        "per_episode_sd": interval.sd,
        "transductive": transductive,
        "sampling": source.sampler.sampling,
        "metrics": extra,
        "class_use": class_use(scores.class_ids, source.table.group_count.cpu().numpy()),
    }


def _interval_or_none(values: np.ndarray, level: float) -> dict[str, float | None]:
    """Of a metric; without numbers where it was not finite for some episode."""
    if not np.isfinite(values).all():
        return {"mean": None, "half_width": None}
    interval = student_interval(values, level)
    return {"mean": interval.mean, "half_width": interval.half_width}


def write_scores(folder: Path, scores: Scores, group_count: npt.NDArray[np.int64]) -> None:
    """episodes.csv and confusion.csv.

    Arguments:
        folder: of the run.
        scores: of the test episodes.
        group_count: how many classes each group has, group after group: rotations of one character
            are classes that share their images, so an interval for new classes counts them as one.
    """
    number = np.arange(len(scores.accuracy))
    way = range(scores.class_ids.shape[1])
    classes = {f"class_{c}": scores.class_ids[:, c] for c in way}
    if (group_count > 1).any():
        group = np.repeat(np.arange(len(group_count)), group_count)
        classes |= {f"group_{c}": group[scores.class_ids[:, c]] for c in way}
    columns = {"episode": number, "accuracy": scores.accuracy, **scores.metrics}
    times = {"adapt_ms": scores.adapt_ms, "predict_ms": scores.predict_ms}
    write_table(folder / "episodes.csv", columns | times | classes)
    episode, target, predicted = scores.confusion.nonzero()
    count = scores.confusion[episode, target, predicted]
    write_table(
        folder / "confusion.csv",
        {"episode": episode, "target": target, "predicted": predicted, "count": count},
    )
