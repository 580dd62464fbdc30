"""Out of memory: the same work in smaller parts, or a size that fits.

Tasks are independent and their randomness is keyed, so a step whose batch is run in chunks has the
same losses, and the same gradient but for the order of a sum.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

from fewshot_bench.engine.executors.eager import Eager
from fewshot_bench.episode import Episode
from fewshot_bench.errors import OutOfMemory, is_out_of_memory
from fewshot_bench.utils.devices import capturing, free_memory, is_gpu, release_memory

R = TypeVar("R")
Run = Callable[[Episode], R]


def within_memory(
    lowering: Eager,
    episode: Episode,
    run: Run[R],
    *,
    prefix: str = "--",
    tell: Callable[[str], None] = lambda _: None,
) -> R:
    """What ``run(episode)`` returns, with fewer tasks at once if memory is short.

    The lowering keeps to the smaller number from then on.

    Arguments:
        lowering: what ``run`` uses.
        episode: the batch.
        run: has no lasting effect when it fails.
        prefix: of the options that make the task smaller: ``--`` or ``--train-``.
        tell: takes a line when the number is lowered.

    Raises:
        OutOfMemory: a single task does not fit, or the method's tasks cannot be parted; names a
            size that was tried and fits, if there is one.
    """
    while True:
        try:
            return run(episode)
        except Exception as error:
            if not is_out_of_memory(error) or capturing(episode.query.device):
                raise
        # Here, where the error and the tensors that its frames hold are gone.
        released = lowering.release()
        _release(episode)
        if released:  # the same again
            continue
        before = lowering.at_once(len(episode))
        if not lowering.shrink(len(episode)):
            alone = episode.tasks(0, 1) if before == 1 else episode
            raise OutOfMemory(_told(alone, run, prefix))
        tell(
            f"out of memory with {before} tasks at once; from here on it is "
            f"{lowering.at_once(len(episode))}, which gives the same gradient"
        )


def _release(episode: Episode) -> None:
    gc.collect()
    release_memory(episode.query.device)


def _told(episode: Episode, run: Run[R], prefix: str) -> str:
    tasks, queries = len(episode), episode.query.shape[1]
    if tasks > 1:
        what = f"{tasks} tasks, which have to be run together, need"
    else:
        what = f"one task with {queries} queries needs"
    device = episode.query.device
    free = f" ({(free_memory(device) or 0) / 1e9:.1f} GB are free)" if is_gpu(device) else ""
    size = next((text for text, smaller in _smaller(episode, prefix) if _fits(run, smaller)), None)
    if size is not None:
        mend = f"{size} fits (it was tried)"
    else:
        mend = f"lower {prefix}way, {prefix}shot or the width of the backbone"
    return f"{what} more memory than {device} has{free}; {mend}."


def _smaller(episode: Episode, prefix: str) -> Iterator[tuple[str, Episode]]:
    """Smaller and smaller batches, each with the option that gives it."""
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
    try:
        run(episode)
    except Exception as error:
        if not is_out_of_memory(error):
            return False
    else:
        return True
    _release(episode)
    return False
