"""When a training writes its state, and when it stops because somebody asked it to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fewshot_bench.config.interval import Due, Every
from fewshot_bench.engine.checkpointing.signals import Signals
from fewshot_bench.engine.checkpointing.state import restore, state_of
from fewshot_bench.engine.checkpointing.store import Saved, Store
from fewshot_bench.errors import ConfigError
from fewshot_bench.hooks.lifecycle import RunHooks

if TYPE_CHECKING:
    from fewshot_bench.engine.training import Trainer


class Keeper:
    """Looks after a training: between two steps it may write a checkpoint, or end it.

    Arguments:
        store: where checkpoints go; None: nowhere.
        every: how often.
        signals: that ask the training to stop.
        again: go on from the newest checkpoint that is whole.
        hooks: told of each checkpoint.
    """

    def __init__(
        self,
        store: Store | None = None,
        every: Every | None = None,
        signals: Signals | None = None,
        again: bool = False,
        hooks: RunHooks | None = None,
    ) -> None:
        self.hooks = hooks or RunHooks()
        self.store, self.signals = store, signals or Signals()
        self.every, self.due = every or Every(), Due(Every())
        self.saved: Saved | None = None
        self._again = again
        self._newest = -1  # step of the newest checkpoint of this process

    def look(self, tell: Callable[[str], None]) -> int:
        """Read the checkpoint to go on from; its step, or 0. ``tell`` takes a line on it."""
        if self._again and self.store is not None:
            self.saved = self.store.newest(tell)
            if self.saved is None:
                tell("there is no checkpoint to go on from: the training starts at its first step")
        return self.saved.step if self.saved else 0

    def begin(self, trainer: Trainer) -> None:
        """Before the first step, or the first after the checkpoint, whose state it takes.

        Raises:
            RecordError: the checkpoint does not fit.
        """
        if self.saved is not None:
            restore(trainer, self.saved)
            trainer.tell(f"going on after step {trainer.step} of {trainer.plan.steps}")
            self.saved = None
        self.due = Due(self.every, trainer.step)

    def after_step(self, trainer: Trainer) -> None:
        """Write a checkpoint if it is time, or the training is over."""
        over = trainer.step == trainer.plan.steps
        if self.due.now(trainer.step) or (over and self._newest != trainer.step):
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write a checkpoint now. A disk that is full, for a while perhaps, ends no training."""
        if self.store is not None:
            try:
                path = self.store.save(trainer.step, state_of(trainer))
                self.hooks.checkpoint_saved(step=trainer.step, path=path)
            except ConfigError as error:
                trainer.tell(str(error))
        self._newest = trainer.step
        self.due.saved(trainer.step)

    @contextmanager
    def gently(self) -> Iterator[None]:
        """While weights move: a signal is only noted."""
        with self.signals.deferred():
            yield

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """While nothing moves, in a validation: a signal breaks it off."""
        with self.signals.deferred(False):
            yield
