"""How often a checkpoint is written, and whether it is time. Imports nothing heavy."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from fewshot_bench.errors import ConfigError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Every:
    """How often a checkpoint is written: after so many steps or seconds; 0: that does not count."""

    steps: int = 0
    seconds: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Every:
        """From ``500`` (steps), ``30s``, ``10m`` or ``2h``; 0: when it ends or stops.

        Raises:
            ConfigError: it is none of these.
        """
        found = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)([smh])", text.strip())
        if found is None:
            raise ConfigError(
                f"--checkpoint-every {text}: give a number of steps like 500, or a time like 30s, "
                "10m or 2h."
            )
        if found[1]:
            return cls(steps=int(found[1]))
        return cls(seconds=float(found[2]) * _UNITS[found[3]])


class Due:
    """Whether it is time for the next checkpoint.

    Arguments:
        every: how often.
        step: that the training goes on from.
    """

    def __init__(self, every: Every, step: int = 0) -> None:
        self.every = every
        self.saved(step)

    def saved(self, step: int) -> None:
        """A checkpoint of this step is there."""
        self._step, self._at = step, time.monotonic()

    def now(self, step: int) -> bool:
        """Asked after every step: it costs a look at a clock that never jumps."""
        if self.every.steps:
            return step - self._step >= self.every.steps
        return bool(self.every.seconds) and time.monotonic() - self._at >= self.every.seconds
