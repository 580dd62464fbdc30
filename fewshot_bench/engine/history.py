"""What a training leaves behind."""

from __future__ import annotations

from dataclasses import dataclass, field

from fewshot_bench.engine.executors.im2col import Columns


@dataclass
class History:
    """What training leaves behind; filled as it goes, so that a broken run has it too."""

    steps: Columns = field(default_factory=Columns)
    validation: list[tuple[int, float]] = field(default_factory=list)
    best_step: int = 0
    seconds: float = 0.0
    warmup_seconds: float = 0.0
    shrunk_at: int = 0  # the last step in which memory was short
    drawn: str = ""  # random numbers that no key decides: a sentence
