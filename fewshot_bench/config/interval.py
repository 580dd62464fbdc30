"""How often a checkpoint is written. Imports nothing heavy."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fewshot_bench.errors import ConfigError

PATTERN = r"(\d+)|(\d+(?:\.\d+)?)([smh])"
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Every:
    """How often a checkpoint is written: after so many steps or seconds; 0: that does not count."""

    steps: int = 0
    seconds: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Every:
        """From ``500`` (steps), ``30s``, ``10m`` or ``2h``; 0: when it ends or stops."""
        found = re.fullmatch(PATTERN, text.strip())
        if found is None:
            what = "give a number of steps like 500, or a time like 30s, 10m or 2h"
            raise ConfigError(f"--checkpoint-every {text}: {what}.")
        if found[1]:
            return cls(steps=int(found[1]))
        return cls(seconds=float(found[2]) * _UNITS[found[3]])
