"""A whole turn of a training step, sampling included, in a CUDA graph.

A graph is captured once and replayed for every step: its thousands of small kernels are then
launched by one call. What changes from step to step are tensors that stand outside of it: the
number of the first episode and the learning rates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from fewshot_bench.engine.lowering import Gradients
from fewshot_bench.engine.timing import PHASES

Body = Callable[[Tensor, Callable[[], None]], Gradients]  # (episode ids, end of a phase)


class CapturedTurn:
    """A turn as a CUDA graph.

    Arguments:
        body: the turn: takes the episodes' numbers, and a function to call when a phase ends.
        size: episodes in the batch.
        device: of everything.

    Raises:
        RuntimeError: something in the turn cannot be captured (a wait for the device, a copy from
            the host).
    """

    def __init__(self, body: Body, size: int, device: torch.device) -> None:
        self.first = torch.zeros((), dtype=torch.int64, device=device)
        # External events may be read although a graph records them.
        self.marks = [
            torch.cuda.Event(enable_timing=True, external=True) for _ in range(len(PHASES) + 1)
        ]
        remaining = iter(self.marks)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            next(remaining).record()
            ids = self.first + torch.arange(size, device=device)
            self.result = body(ids, lambda: next(remaining).record())

    def replay(self, first: int) -> Gradients:
        """Do the turn on the episodes from number ``first`` on; its numbers, copied."""
        self.first.fill_(first)
        self.graph.replay()
        return self.result.numbers()


def make_capturable(optimisers: Sequence[Optimizer], device: torch.device) -> str | None:
    """Switch optimisers to state and rates that live on the device.

    Returns:
        What is in the way, or None.
    """
    for optimiser in optimisers:
        if "capturable" not in optimiser.defaults:
            return f"{type(optimiser).__name__} has no capturable form"
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["capturable"] = True
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device)
    return None
