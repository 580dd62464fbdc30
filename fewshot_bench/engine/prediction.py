"""What a method answers, and how long that took it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Call:
    """What is known of a call of the method's ``adapt`` and ``predict``.

    Arguments:
        tasks: that are wanted of it.
        ran: tasks that it was of, the wanted ones first.
        laps: gives the ms that it took to learn them, and to classify them; may wait.
    """

    tasks: int
    ran: int
    laps: Callable[[], Sequence[float]]


@dataclass
class Prediction:
    """Logits [T, Q, way], and the calls that they are of, in the order of the tasks."""

    logits: Tensor
    calls: list[Call]

    @property
    def adapt_ms(self) -> Tensor:
        """ms that each task took to learn, [T] on the host; a call's are shared out equally."""
        return self._each(0)

    @property
    def predict_ms(self) -> Tensor:
        """ms that each task took to classify, [T] on the host; shared out as well."""
        return self._each(1)

    def _each(self, lap: int) -> Tensor:
        shares = [torch.ones(c.tasks) / c.ran * c.laps()[lap] for c in self.calls]
        return torch.cat(shares)

    def first(self, tasks: int) -> Prediction:
        """That of the first tasks alone."""
        calls, left = [], tasks
        for call in self.calls:
            calls.append(replace(call, tasks=min(call.tasks, left)))
            left -= calls[-1].tasks
        return Prediction(self.logits[:tasks], calls)


@dataclass
class Kept:
    """What evaluations leave for the next one; see
    :mod:`fewshot_bench.engine.executors.evaluation_graph`.

    Arguments:
        graph: the newest, if any; has ``release()``.
        stream: that it belongs to.
        captures: whether graphs can be captured, as far as is known.
    """

    graph: Any = None
    stream: Any = None
    captures: bool = True


def joined_predictions(parts: Sequence[Prediction]) -> Prediction:
    """One prediction of all tasks, in the order of the parts."""
    if len(parts) == 1:
        return parts[0]
    logits = torch.cat([part.logits for part in parts])
    return Prediction(logits, [call for part in parts for call in part.calls])
