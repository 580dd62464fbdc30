"""Numbers of every step, eight bytes each: a run of a million steps stays small."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt


class Columns:
    """A table that grows by rows; a number that a row does not have is NaN."""

    def __init__(self) -> None:
        self._columns: dict[str, array[float]] = {}
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def append(self, row: Mapping[str, float]) -> None:
        """Add a row; a name that is new begins a column."""
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

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[np.float64]]) -> Columns:
        """The table that gave these :meth:`arrays`."""
        table = cls()
        table._columns = {name: array("d", column.tobytes()) for name, column in arrays.items()}
        table._rows = max(map(len, arrays.values()), default=0)
        return table

    def arrays(self) -> dict[str, npt.NDArray[np.float64]]:
        """{name: float64 [rows]}, copies."""
        return {name: np.array(column) for name, column in self._columns.items()}
