"""What a training step costs, counted on one task before the run: operations and memory."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fewshot_bench.engine.executors.eager import Eager, differentiate
from fewshot_bench.episode import Episode
from fewshot_bench.method import Method, Player
from fewshot_bench.sampling.base import EpisodeSource
from fewshot_bench.sampling.batches import BatchSource
from fewshot_bench.utils.devices import free_memory

ADAM_COPIES = 4  # a weight, its gradient and two averages


@dataclass(frozen=True)
class Cost:
    """Of one step, all turns, backward included.

    Arguments:
        flops: operations of convolutions and matrix products.
        memory_bytes: an estimate: the table of images, the weights with what an optimizer keeps
            of them, and what autograd holds of the tasks that are run at the same time.
        task_bytes: the part of that which one task holds.
    """

    flops: int
    memory_bytes: int
    task_bytes: int


def cost_of_step(
    method: Method,
    lowering: Eager,
    source: EpisodeSource | BatchSource,
    players: Mapping[str, Player],
    task_batch: int,
    task: Episode | None = None,
) -> Cost:
    """One task is run and multiplied by the number of tasks: their cost is the same.

    Arguments:
        task: a batch of one; None: the first of the source.
    """
    episode = source.batch(range(1)) if task is None else task
    flops, held = 0, 0
    for turn in method.turns:
        with lowering.set_up(episode.query.device), _held_by_autograd() as peak:
            counter = FlopCounterMode(display=False)
            with counter:
                differentiate(method, episode, players, turn)
        flops += counter.get_total_flops()
        held = max(held, peak[0])
    weights = sum(p.numel() * p.element_size() for p in method.parameters())
    fixed = source.table.images.numel() + ADAM_COPIES * weights
    return Cost(flops * task_batch, fixed + held * lowering.at_once(task_batch), held)


def advice(cost: Cost, lowering: Eager, task_batch: int, device: torch.device) -> str | None:
    """A line for the user if the step will hardly fit into the device's memory."""
    free = free_memory(device)
    if free is None or cost.memory_bytes <= 0.9 * free:
        return None
    at_once = lowering.at_once(task_batch)
    room = 0.9 * free - (cost.memory_bytes - at_once * cost.task_bytes)
    fits = int(room // max(cost.task_bytes, 1))
    mend = f"--task-chunk {fits} fits" if 0 < fits < at_once else "a smaller task fits better"
    return (
        f"a step of {at_once} tasks at once needs about {cost.memory_bytes / 1e9:.1f} GB and "
        f"{free / 1e9:.1f} GB are free; {mend}"
    )


@contextmanager
def _held_by_autograd() -> Iterator[list[int]]:
    """Watch what backward passes wait for: the list's one number is the largest sum, in bytes."""
    peak, now = [0], 0
    users: dict[int, int] = {}  # storage: how many saved tensors lie in it

    def forget(address: int, size: int) -> None:
        nonlocal now
        users[address] -= 1
        if not users[address]:
            del users[address]
            now -= size

    def pack(tensor: Tensor) -> _Saved:
        nonlocal now
        storage = tensor.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        if address not in users:
            now += size
            peak[0] = max(peak[0], now)
        users[address] = users.get(address, 0) + 1
        # Not the tensor itself: what a node saves of its own output would keep that node alive.
        saved = _Saved(tensor.detach())
        weakref.finalize(saved, forget, address, size)
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        yield peak


class _Saved:
    """A saved tensor whose end can be seen."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
