"""Who may watch a run: observers get plain numbers at boundaries, never inside a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from fewshot_bench.errors import plugin_errors


class Observer:
    """Base class of observers, which ``--with NAME`` adds to a run. Override what you need.

    Attributes:
        folder: of the run, for files of the observer's own; known from ``run_started`` on.
        resumed_from: step of the checkpoint that the run goes on from, 0 at its first start; what
            was told of later steps comes again.
    """

    folder: Path
    resumed_from: int = 0

    def run_started(self, config: Mapping[str, Any]) -> None:
        """The configuration is complete and the data are read."""

    def train_logged(self, step: int, metrics: Mapping[str, float]) -> None:
        """A window of training steps ended; ``metrics`` are those of its last step."""

    def evaluation_ended(self, split: str, scores: Sequence[float]) -> None:
        """``split`` (``validation`` or ``test``) was evaluated; one accuracy per episode."""

    def run_ended(self, record: Mapping[str, Any]) -> None:
        """The record is written."""


class Observers:
    """All observers of a run; what one of them raises names it.

    Arguments:
        observers: {title: observer}.
    """

    def __init__(self, observers: Mapping[str, Observer]) -> None:
        self.observers = observers

    def follow(self, folder: Path, step: int = 0) -> None:
        """Tell every observer the folder of the run, and the step that it goes on from."""
        for title, observer in self.observers.items():
            with plugin_errors(f"folder of {title}"):
                observer.folder, observer.resumed_from = folder, step

    def tell(self, event: str, *arguments: Any) -> None:
        """Call a method of every observer."""
        for title, observer in self.observers.items():
            with plugin_errors(f"{event}() of {title}"):
                getattr(observer, event)(*arguments)


class Progress(Protocol):
    """What shows a run while it goes on."""

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """A part of the run begins that has ``total`` units of work, or goes on after ``done``."""

    def update(self, done: int, **numbers: float) -> None:
        """So many units are done, of ``tasks`` each; numbers to show beside them."""

    def message(self, text: str) -> None:
        """A line that stays."""


class Silent:
    """A progress that shows nothing."""

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """Show nothing."""

    def update(self, done: int, **numbers: float) -> None:
        """Show nothing."""

    def message(self, text: str) -> None:
        """Show nothing."""
