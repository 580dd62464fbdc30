"""How long the rest of a grid of runs will take, from the runs that are done."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Protocol


class Placed(Protocol):
    """A cell of a grid."""

    @property
    def entry(self) -> str:
        """Its row."""

    @property
    def column(self) -> str:
        """Its column."""


class Pace:
    """What the runs of a grid take, told from those that are done."""

    def __init__(self) -> None:
        self._took: dict[tuple[str, str], list[float]] = {}  # by row and column

    def note(self, cell: Placed, seconds: float) -> None:
        """A run took so long."""
        self._took.setdefault((cell.entry, cell.column), []).append(seconds)

    def left(self, cells: Sequence[Placed]) -> float | None:
        """Seconds for these cells; None where nothing is known.

        A cell takes what its row took in its column, else in others; one of a row that has not
        been run yet, what the others took on average.
        """
        each = [self._of(cell) for cell in cells]
        known = [seconds for seconds in each if seconds is not None]
        return sum(known) / len(known) * len(cells) if known else None

    def _of(self, cell: Placed) -> float | None:
        row = [s for (entry, _), took in self._took.items() if entry == cell.entry for s in took]
        same = self._took.get((cell.entry, cell.column), row)
        return statistics.mean(same) if same else None
