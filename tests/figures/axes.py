"""What stands in the axes of a figure, for tests."""

from __future__ import annotations

import numpy as np


def points(container) -> tuple[list[float], list[float]]:
    """x and y of an errorbar's markers."""
    line = container.lines[0]
    return list(line.get_xdata()), list(line.get_ydata())


def bars(container) -> np.ndarray:
    """The ends of an errorbar's intervals: [points, 2 ends, (x, y)]."""
    segments = container.lines[2][0].get_segments()
    return np.array([s if len(s) else np.full((2, 2), np.nan) for s in segments])
