"""Settings of ``--preset quick | tutorial | paper``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fewshot_bench.episode import Task

PRESETS = ("quick", "tutorial", "paper")


def preset(name: str, dataset: str, task: Task) -> Mapping[str, Any] | None:
    """The settings of a preset for a data set and task, or None if there is none."""
    if name == "quick":
        return QUICK
    return None


QUICK: dict[str, Any] = {}
