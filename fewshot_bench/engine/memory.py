"""Memory: what a step needs, and the same work in smaller parts where the device is short of it."""

import gc
import logging
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fewshot_bench.engine.executors import Executor, differentiate
from fewshot_bench.episode import Episode
from fewshot_bench.errors import OutOfMemory, is_out_of_memory
from fewshot_bench.method import Method, Player
from fewshot_bench.sampling.base import EpisodeSource
from fewshot_bench.sampling.batches import BatchSource
from fewshot_bench.utils.devices import capturing, free_memory, is_gpu, release_memory

logger = logging.getLogger(__name__)

ADAM_COPIES = 4  # a weight, its gradient and two averages
R = TypeVar("R")
Run = Callable[[Episode], R]


def within_memory(executor: Executor, episode: Episode, run: Run[R], *, prefix: str = "--") -> R:
    """What ``run(episode)`` returns, with fewer tasks at once, from then on, if memory is short.

    It has no lasting effect when it fails. ``prefix``: of the options that make the task smaller.
    OutOfMemory if a single task does not fit, or the method's tasks cannot be parted.
    """
    while True:
        try:
            return run(episode)
        except Exception as error:
            if not is_out_of_memory(error) or capturing(episode.query.device):
                raise
        # Here, where the error and the tensors that its frames hold are gone.
        released = executor.release()
        _release(episode)
        if released:  # the same again
            continue
        before = executor.at_once(len(episode))
        if not executor.shrink(len(episode)):
            alone = episode.tasks(0, 1) if before == 1 else episode
            raise OutOfMemory(_advice(alone, run, prefix))
        logger.warning(
            "out of memory with %d tasks at once; using %d from here on, which gives the same "
            "gradient", before, executor.at_once(len(episode)),
        )  # fmt: skip


def _release(episode: Episode) -> None:
    gc.collect()
    release_memory(episode.query.device)


def _advice(episode: Episode, run: Run[R], prefix: str) -> str:
    tasks, queries, device = len(episode), episode.query.shape[1], episode.query.device
    what = f"one task with {queries} queries needs"
    if tasks > 1:
        what = f"{tasks} tasks, which have to be run together, need"
    free = f" ({(free_memory(device) or 0) / 1e9:.1f} GB are free)" if is_gpu(device) else ""
    fits = (f"{size} fits (it was tried)" for size, e in _smaller(episode, prefix) if _fits(run, e))
    fix = next(fits, f"lower {prefix}way, {prefix}shot or the width of the backbone")
    return f"{what} more memory than {device} has{free}; {fix}."


def _smaller(episode: Episode, prefix: str) -> Iterator[tuple[str, Episode]]:
    tasks, queries, way = len(episode), episode.query.shape[1], episode.class_ids.shape[1]
    while tasks > 1:
        tasks //= 2
        yield f"--task-batch {tasks}", episode.tasks(0, tasks)
    each, rest = divmod(queries, way)
    while not rest and each > 1:
        each //= 2
        some = each * way
        one = episode.tasks(0, 1)
        target = {"target": one.target[:, :some]} if isinstance(one, Episode) else {}
        yield f"{prefix}query {each}", replace(one, query=one.query[:, :some], **target)


def _fits(run: Run[R], episode: Episode) -> bool:
    with suppress(Exception):
        run(episode)
        return True
    _release(episode)
    return False


@dataclass(frozen=True)
class Cost:
    """Of one step, all turns, backward included."""

    flops: int  # of convolutions and matrix products
    memory_bytes: int  # estimated: images, weights and optimizer, what autograd holds at a time
    task_bytes: int  # that of one task


def cost_of_step(
    method: Method, executor: Executor, source: EpisodeSource | BatchSource,
    players: Mapping[str, Player], task_batch: int, task: Episode | None = None,
) -> Cost:  # fmt: skip
    """The cost of one task (default: the first of the source), which is run, times their number."""
    episode = source.batch(range(1)) if task is None else task
    flops, held = 0, 0
    for turn in method.turns:
        counter = FlopCounterMode(display=False)
        with executor.set_up(episode.query.device), _held_by_autograd() as peak, counter:
            differentiate(method, episode, players, turn)
        flops += counter.get_total_flops()
        held = max(held, peak[0])
    weights = sum(p.numel() * p.element_size() for p in method.parameters())
    fixed = source.table.images.numel() + ADAM_COPIES * weights
    return Cost(flops * task_batch, fixed + held * executor.at_once(task_batch), held)


def warn_of_cost(cost: Cost, executor: Executor, task_batch: int, device: torch.device) -> None:
    """Log a warning if the step will hardly fit into the device's memory."""
    free = free_memory(device)
    if free is None or cost.memory_bytes <= 0.9 * free:
        return
    at_once = executor.at_once(task_batch)
    room = 0.9 * free - (cost.memory_bytes - at_once * cost.task_bytes)
    fits = int(room // max(cost.task_bytes, 1))
    fix = f"--task-chunk {fits} fits" if 0 < fits < at_once else "a smaller task fits better"
    logger.warning(
        "a step of %d tasks at once needs about %.1f GB and %.1f GB are free; %s",
        at_once, cost.memory_bytes / 1e9, free / 1e9, fix,
    )  # fmt: skip


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


@dataclass(eq=False)
class _Saved:
    tensor: Tensor
