"""Factors of a learning rate over a training, for :class:`fewshot_bench.method.Player`."""

from __future__ import annotations

import math
from collections.abc import Callable


def halving(every: int) -> Callable[[int, int], float] | None:
    """Half the rate after so many steps, again and again; None (a constant rate) for 0."""
    return (lambda step, steps: 0.5 ** (step // every)) if every else None


def cosine(step: int, steps: int) -> float:
    """Half a cosine wave from 1 to 0 (Loshchilov and Hutter 2017)."""
    return 0.5 + 0.5 * math.cos(math.pi * step / steps)
