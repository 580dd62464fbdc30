"""Honest times of steps: device events on a GPU, a monotonic clock on a CPU.

Nothing here waits for a GPU inside a step: events are read when a window of steps is flushed.
"""

import math
from array import array
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fewshot_bench.utils.devices import clock_of, wait

PHASES = ("sample", "forward_backward", "optimizer")
WARM_UP = 3  # steps that are counted apart, and run before one is captured


class Columns:
    """A table of numbers that grows by rows, eight bytes each; a number that a row lacks is NaN."""

    def __init__(self, arrays: Mapping[str, npt.NDArray[np.float64]] | None = None) -> None:
        """``arrays``: of an earlier table, to continue."""
        arrays = arrays or {}
        self._columns = {name: array("d", column.tobytes()) for name, column in arrays.items()}
        self._rows = max(map(len, arrays.values()), default=0)

    def __len__(self) -> int:
        return self._rows

    def append(self, row: Mapping[str, float]) -> None:
        for name in row:
            if name not in self._columns:
                self._columns[name] = array("d", [math.nan] * self._rows)
        for name, column in self._columns.items():
            column.append(row.get(name, math.nan))
        self._rows += 1

    def last(self) -> dict[str, float]:
        """The newest row, without what it does not have."""
        newest = {name: column[-1] for name, column in self._columns.items()}
        return {name: value for name, value in newest.items() if not math.isnan(value)}

    def arrays(self) -> dict[str, npt.NDArray[np.float64]]:
        """{name: float64 [rows]}, copies."""
        return {name: np.array(column) for name, column in self._columns.items()}


Shared = tuple[Any, Any, int]  # begin and end of some work, and the turns that it is for


class StepTimer:
    """Times the phases of every step (all its ``turns``), the first ``warmup`` counted apart."""

    def __init__(self, device: torch.device, warmup: int = WARM_UP, turns: int = 1) -> None:
        self.turns = turns
        self.clock = clock_of(device)
        self.warmup = warmup
        self.cold = [0]  # steps done when a process began: its first ones warm up
        self._table = Columns()  # ms of each turn: step_ms and the phases
        self._marks: list[Any] = []
        # A turn's ends, its phases', and what was done for several turns.
        self._pending: list[tuple[list[Any], Sequence[Any], Shared | None]] = []

    def start(self) -> None:
        self._marks = [self.clock.now()]

    def mark(self) -> None:
        """A phase ends, in the order of ``PHASES``; the last one ends the turn."""
        self._marks.append(self.clock.now())
        if len(self._marks) == len(PHASES) + 1:
            self._pending.append((self._marks, self._marks, None))

    def replayed(self, inside: Sequence[Any], drawn: Shared | None = None) -> None:
        """A captured turn that :meth:`start` began has ended; ``drawn``: the sampling for it.

        ``inside``: the events within it, one more than there are phases. Each replay overwrites
        them, so that of a window the last turn's alone are read.
        """
        self._pending.append(([self._marks[0], self.clock.now()], inside, drawn))

    def flush(self) -> None:
        if self._pending:
            self.clock.wait(self._pending[-1][0][-1])
        newest = {id(inside): i for i, (_, inside, _) in enumerate(self._pending)}
        for i, (ends, inside, drawn) in enumerate(self._pending):
            known = inside if newest[id(inside)] == i else ()
            phases = [self.clock.ms(a, b) for a, b in pairwise(known)]
            share = 0.0 if drawn is None else self.clock.ms(*drawn[:2]) / drawn[2]
            if phases:
                phases[0] += share
            self.add(self.clock.ms(ends[0], ends[-1]) + share, phases)
        self._pending = []

    def add(self, total: float, phases: Sequence[float] = ()) -> None:
        """Note a turn: its ms, and those of its phases if they are known."""
        known = phases or [math.nan] * len(PHASES)
        self._table.append({"step_ms": total} | dict(zip(PHASES, known, strict=True)))

    def state(self) -> dict[str, Any]:
        """For a checkpoint; to be taken when everything is flushed."""
        return {"ms": self._table.arrays(), "cold": list(self.cold)}

    def restore(self, state: Mapping[str, Any], step: int) -> None:
        """Continue from a :meth:`state` after this step, in a process that is cold."""
        self._table = Columns(state["ms"])
        self.cold = [*state["cold"], step]

    def columns(self) -> dict[str, np.ndarray]:
        """{step_ms and phase_ms: [steps]} of every step so far; a phase not measured is NaN."""
        arrays = self._table.arrays() or dict.fromkeys(("step_ms", *PHASES), np.empty(0))
        whole = len(self._table) // self.turns * self.turns  # an interrupted step is left out
        sums = {n: a[:whole].reshape(-1, self.turns).sum(1) for n, a in arrays.items()}
        return {n if n == "step_ms" else f"{n}_ms": total for n, total in sums.items()}

    def summary(self, tasks_per_step: int) -> dict[str, object]:
        """Median and 95th percentile of a step, medians of its phases; None without steps."""
        columns = self.columns()
        warm = np.ones(len(columns["step_ms"]), bool)
        for first in self.cold:
            warm[first : first + self.warmup] = False
        columns = {name: ms[warm] for name, ms in columns.items()}
        steps = columns.pop("step_ms")
        if not len(steps):
            return {"step_ms": None, "tasks_per_s": None, "phases": None, "warmup_steps": 0}
        median = float(np.median(steps))
        return {
            "step_ms": {"median": median, "p95": float(np.quantile(steps, 0.95))},
            "tasks_per_s": tasks_per_step / median * 1e3,
            "phases": {
                name.removesuffix("_ms"): float(np.nanmedian(ms))
                for name, ms in columns.items()
                if not np.isnan(ms).all()
            },
            "warmup_steps": int((~warm).sum()),
        }


class Stopwatch:
    """Points in time on a device; those marked in a CUDA graph are of its newest replay."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._clock = device, clock_of(device)
        self._marks = [self._clock.now()]

    def mark(self) -> None:
        self._marks.append(self._clock.now())

    def laps(self) -> list[float]:
        """ms of each lap; waits for the device."""
        # For all of it: nobody can wait for an event in a graph.
        wait(self._device)
        return [self._clock.ms(a, b) for a, b in pairwise(self._marks)]
