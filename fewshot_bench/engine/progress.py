"""What shows how far a run is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """What shows a run while it goes on."""

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """A part of the run begins that has ``total`` units of work, or goes on after ``done``."""
        return

    def update(self, done: int, **numbers: float) -> None:
        """So many units are done, of ``tasks`` each; numbers to show beside them."""
        return

    def message(self, text: str) -> None:
        """A line that stays."""
        return


class Silent(Progress):
    """A progress that shows nothing."""
