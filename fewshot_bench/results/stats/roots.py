"""Where a function is 0. ``scipy.optimize`` has it too, and takes half a second to import."""

from __future__ import annotations

from collections.abc import Callable

STEPS = 60  # halvings: the ends are then 1e-18 of their first distance apart


def root(function: Callable[[float], float], low: float, high: float) -> float:
    """The place between ``low`` and ``high`` where the function changes its sign, by bisection.

    Arguments:
        function: continuous, of different signs at the ends.
        low, high: the ends.
    """
    falls = function(low) > 0
    for _ in range(STEPS):
        middle = (low + high) / 2
        if (function(middle) > 0) == falls:
            low = middle
        else:
            high = middle
    return (low + high) / 2
