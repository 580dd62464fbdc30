"""Honest times of steps: device events on a GPU, a monotonic clock on a CPU.

Nothing here waits for a GPU inside a step. Events are read when a window of steps is flushed,
which costs one synchronisation. Warm-up steps are kept apart and enter no statistic.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch

PHASES = ("sample", "forward_backward", "optimiser")


class StepTimer:
    """Times the phases of every step.

    Arguments:
        device: whose time it is.
        warmup: how many first steps are counted apart.
        turns: turns in a step; a step's time is the sum of theirs.
    """

    def __init__(self, device: torch.device, warmup: int = 3, turns: int = 1) -> None:
        self.turns = turns
        self.cuda = device.type == "cuda"
        self.warmup = warmup
        self.rows: list[list[float]] = []  # ms of each phase of each turn
        self._marks: list[object] = []
        self._pending: list[list[object]] = []

    def start(self) -> None:
        """A turn begins."""
        self._marks = [self._now()]

    def mark(self) -> None:
        """A phase ends, in the order of ``PHASES``; the last one ends the turn."""
        self._marks.append(self._now())
        if len(self._marks) == len(PHASES) + 1:
            self._pending.append(self._marks)

    def _now(self) -> object:
        if not self.cuda:
            return time.perf_counter_ns()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def flush(self) -> None:
        """Turn what was marked into milliseconds."""
        if self._pending and self.cuda:
            self._pending[-1][-1].synchronize()  # type: ignore[attr-defined]
        for marks in self._pending:
            self.rows.append([self._between(a, b) for a, b in pairwise(marks)])
        self._pending = []

    def _between(self, a: object, b: object) -> float:
        if isinstance(a, int) and isinstance(b, int):
            return (b - a) / 1e6
        return float(a.elapsed_time(b))  # type: ignore[attr-defined]

    def columns(self) -> dict[str, np.ndarray]:
        """{phase_ms: [steps]} with ``step_ms``, their sum, for every step so far."""
        whole = len(self.rows) // self.turns * self.turns  # an interrupted step is left out
        rows = np.array(self.rows[:whole], dtype=np.float64)
        table = rows.reshape(-1, self.turns, len(PHASES)).sum(1)
        columns = {f"{phase}_ms": table[:, i] for i, phase in enumerate(PHASES)}
        return {"step_ms": table.sum(1), **columns}

    def summary(self, tasks_per_step: int) -> dict[str, object]:
        """Median and 95th percentile of a step, medians of its phases; None without steps."""
        columns = {name: ms[self.warmup :] for name, ms in self.columns().items()}
        steps = columns.pop("step_ms")
        if not len(steps):
            return {"step_ms": None, "tasks_per_s": None, "phases": None, "warmup_steps": 0}
        median = float(np.median(steps))
        return {
            "step_ms": {"median": median, "p95": float(np.quantile(steps, 0.95))},
            "tasks_per_s": tasks_per_step / median * 1e3,
            "phases": {
                name.removesuffix("_ms"): float(np.median(v)) for name, v in columns.items()
            },
            "warmup_steps": self.warmup,
        }


class Stopwatch:
    """Milliseconds between two points; on a GPU it waits for the work in between."""

    def __init__(self, device: torch.device) -> None:
        self._wait: Callable[[], None] = (
            torch.cuda.synchronize if device.type == "cuda" else lambda: None
        )
        self.lap()

    def lap(self) -> float:
        """Time since the last lap, in ms."""
        self._wait()
        now, before = time.perf_counter_ns(), getattr(self, "_last", 0)
        self._last = now
        return (now - before) / 1e6


def peak_memory_bytes(device: torch.device) -> int:
    """Largest amount allocated on the GPU; on a CPU, the process's largest resident size."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
