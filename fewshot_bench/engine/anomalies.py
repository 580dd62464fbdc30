"""Numbers that stop being finite (``--detect-anomaly``), and that jump (``--skip-spikes``)."""

from __future__ import annotations

import math
import re
import statistics
import traceback
from collections import defaultdict, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewshot_bench.utils import torch_private
from fewshot_bench.utils.torch_private import TorchDispatchMode, current_autograd_node, tree_leaves

WINDOW, LEAST = 50, 10  # numbers that a median is taken of: at most, and before it counts
_TORCH, _ENGINE = Path(torch.__file__).parent, Path(__file__).parent
_FRAME = re.compile(r'File "([^"]*)", line (\d+)')  # in a traceback
# These return uninitialized memory, which is no result.
_RAW = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_")


class Watch(TorchDispatchMode):
    """Remembers the first operation that made a non-finite number out of finite ones.

    Slow: every operation is waited for and checked, of the forward and of the backward pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: str | None = None

    def __enter__(self) -> Watch:
        # It stores where a node was made.
        self._detects = torch.autograd.set_detect_anomaly(True, check_nan=False)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._detects.__exit__(*error)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        checked = self.found is None and func.overloadpacket.__name__ not in _RAW
        checked = checked and _finite((args, kwargs))
        result = func(*args, **(kwargs or {}))
        if checked and not _finite(result):
            self.found = f"'{func.overloadpacket.__name__}' {_place()}"
        return result

    @property
    def origin(self) -> str:
        """What was found, as part of a sentence; empty if nothing was."""
        return f"; the first operation to give such a number was {self.found}" if self.found else ""


def _finite(values: Any) -> bool:
    for value in tree_leaves(values):
        if isinstance(value, float) and not math.isfinite(value):
            return False
        if isinstance(value, Tensor) and value.device.type != "meta":
            inexact = value.is_floating_point() or value.is_complex()
            if inexact and not bool(torch.isfinite(value).all()):
                return False
    return True


def _place() -> str:
    """The line of the running operation; for a backward pass, that of its forward operation."""
    current = current_autograd_node()
    if current is not None:
        trace = current.metadata.get("traceback_")
        lines = [line.strip() for part in trace or () for line in part.splitlines()]
        places = [found.groups() for line in lines if (found := _FRAME.match(line))]
        own = [f" of {Path(path).name}, line {n}" for path, n in places if _is_outside(path)]
        name = str(current.name()).removesuffix("0")
        return f"in the backward pass ({name}){own[-1] if own else ''}"
    frames = [frame for frame in traceback.extract_stack() if _is_outside(frame.filename)]
    return f"in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""


def _is_outside(path: str) -> bool:
    """Whether a file is neither torch's nor the engine's."""
    inside = any(Path(path).is_relative_to(folder) for folder in (_TORCH, _ENGINE))
    return not inside and path != torch_private.__file__


class SpikeGuard:
    """Finds steps whose loss or gradient norm is over ``factor`` times its recent values.

    Each number is compared with the median of its last ``WINDOW`` values of steps that were taken;
    until there are ``LEAST`` of them everything passes.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.seen: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=WINDOW))
        self.skipped: list[int] = []

    def spikes(self, numbers: Mapping[str, float], step: int) -> bool:
        """Whether the step with these numbers is to be skipped; else they are remembered."""
        for name, value in numbers.items():
            seen = self.seen[name]
            if len(seen) >= LEAST and abs(value) > self.factor * statistics.median(seen):
                if step not in self.skipped:
                    self.skipped.append(step)
                return True
        for name, value in numbers.items():
            self.seen[name].append(abs(value))
        return False

    def state(self) -> dict[str, Any]:
        return {"seen": {n: list(v) for n, v in self.seen.items()}, "skipped": self.skipped}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.skipped = list(state["skipped"])
        for name, values in state["seen"].items():
            self.seen[name].extend(values)
