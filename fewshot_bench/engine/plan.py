"""How long a training is, and what is looked at on the way."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """How long and how often.

    Arguments:
        steps: meta-steps; each holds every turn of the method once.
        task_batch: tasks in the batch of a turn.
        validate_every: steps between validations; 0: only at the end.
        window: steps between reads of device numbers (losses, times): 1 on a CPU.
        skip_spikes: a step is left out if its loss or gradient norm is over so many times its
            recent median; None: none is.
        detect_anomaly: look for the operation behind a number that is not finite.
    """

    steps: int
    task_batch: int
    validate_every: int = 0
    window: int = 1
    skip_spikes: float | None = None
    detect_anomaly: bool = False
