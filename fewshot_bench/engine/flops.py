"""Floating-point operations of a training step, counted and not estimated."""

from __future__ import annotations

from collections.abc import Mapping

from torch.utils.flop_counter import FlopCounterMode

from fewshot_bench.engine.lowering import differentiate
from fewshot_bench.method import Method, Player
from fewshot_bench.sampling import EpisodeSource


def flops_per_step(
    method: Method, source: EpisodeSource, players: Mapping[str, Player], task_batch: int
) -> int:
    """Operations of convolutions and matrix products in one step, all turns, backward included.

    One task is run and multiplied by the number of tasks: their cost is the same.
    """
    episode = source.batch(range(1))
    total = 0
    for turn in method.turns:
        with FlopCounterMode(display=False) as counter:
            differentiate(method, episode, players, turn)
        total += counter.get_total_flops()
    return total * task_batch
