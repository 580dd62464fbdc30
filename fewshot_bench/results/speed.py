"""Times and memory of the runs in a cell, and the time to a target accuracy."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from fewshot_bench.errors import RecordError
from fewshot_bench.results.runs import Run
from fewshot_bench.results.tables import read_table


@dataclass(frozen=True)
class Speed:
    """Medians over the runs; None where none of them was timed.

    Arguments:
        step_ms, step_ms_p95: a training step: its median, its 95th percentile.
        tasks_per_s: of training.
        adapt_ms, predict_ms: to learn a test task, to classify its queries.
        training_seconds: of the whole training, validation included.
        peak_memory_bytes: on a GPU what was allocated, on a CPU the size of the process.
        parameters: how many numbers the method has.
        target_seconds: of training steps until validation first reached the target; infinite if
            fewer than half of the runs got there; None if nothing was asked for, trained or kept.
        target_reached: how many of the runs got there.
        devices: names of the devices, most often one.
    """

    step_ms: float | None
    step_ms_p95: float | None
    tasks_per_s: float | None
    adapt_ms: float | None
    predict_ms: float | None
    training_seconds: float | None
    peak_memory_bytes: float | None
    parameters: float | None
    target_seconds: float | None
    target_reached: int | None
    devices: tuple[str, ...]


NUMBERS = tuple(field.name for field in fields(Speed))[:8]


def speed_of(runs: Sequence[Run], target: float | None = None) -> Speed:
    """The medians over runs.

    Arguments:
        runs: of one configuration and setting.
        target: validation accuracy whose time is wanted.

    Raises:
        RecordError: the curves that tell of the target are damaged.
    """
    each = [_numbers(run.record) for run in runs]
    numbers = {name: _median([one[name] for one in each]) for name in NUMBERS}
    times = [] if target is None else [seconds_to(run, target) for run in runs]
    known = [seconds for seconds in times if seconds is not None]
    return Speed(
        **numbers,
        # An even number of runs has two in the middle: the later one, which may be infinite.
        target_seconds=statistics.median_high(known) if known else None,
        target_reached=sum(map(math.isfinite, known)) if known else None,
        devices=tuple(sorted({run.record["device"]["name"] for run in runs})),
    )


def _numbers(record: dict[str, Any]) -> dict[str, float | None]:
    timing, step = record["timing"], record["timing"].get("step_ms") or {}
    return {
        "step_ms": step.get("median"),
        "step_ms_p95": step.get("p95"),
        "tasks_per_s": timing.get("tasks_per_s"),
        "adapt_ms": timing.get("adapt_ms"),
        "predict_ms": timing.get("predict_ms"),
        "training_seconds": (record["training"] or {}).get("seconds"),
        "peak_memory_bytes": timing.get("peak_memory_bytes"),
        "parameters": record["parameters"],
    }


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return known[0] if known else None
    return statistics.median(known)


def seconds_to(run: Run, target: float) -> float | None:
    """Seconds of training steps until the first validation at or above ``target``.

    The times are those of ``steps.csv``, summed; validation itself is not counted.

    Returns:
        Infinity if no validation got there; None if the run did not train (or evaluates what
        another run trained) or has never validated.

    Raises:
        RecordError: ``validation.csv`` or ``steps.csv`` is missing or damaged.
    """
    if run.record["training"] is None or run.record.get("evaluated_from"):
        return None
    curve = read_table(run.folder / "validation.csv", ("step", "accuracy"))
    if set(curve) != {"step", "accuracy"}:
        raise RecordError(f"'{run.folder / 'validation.csv'}' lacks a column.")
    if not len(curve["step"]):
        return None
    reached = curve["step"][curve["accuracy"] >= target]
    if not len(reached):
        return math.inf
    steps = read_table(run.folder / "steps.csv", ("step", "step_ms"))
    if set(steps) != {"step", "step_ms"}:
        raise RecordError(f"'{run.folder / 'steps.csv'}' lacks a column.")
    times = steps["step_ms"][steps["step"] <= reached.min()]
    if not np.isfinite(times).all() or len(times) < reached.min():
        raise RecordError(f"'{run.folder / 'steps.csv'}' lacks steps.")
    return float(times.sum()) / 1e3
