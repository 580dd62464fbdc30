"""Task threads: on a CPU, one task at a time on each of several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

from fewshot_bench.engine.executors.base import (
    Executor,
    Gradients,
    P,
    R,
    differentiate,
    reduce_over_tasks,
)
from fewshot_bench.episode import Episode
from fewshot_bench.method import Method, Player
from fewshot_bench.nn import replica


class TaskThreads(Executor):
    """One task a call, tasks spread over threads; gradients are summed in episode order.

    Each thread has a replica of the method. Torch runs single-threaded meanwhile, but for a batch
    of one task, which gets all threads for its operations.
    """

    default_name = "threads"

    def __init__(self, method: Method, threads: int | None = None, **settings: Any) -> None:
        super().__init__(method, **settings)
        most = threads or torch.get_num_threads()
        # A thread holds one task: to hold fewer tasks is to use fewer threads.
        self.threads = min(most, self.task_chunk or most)
        self._local = threading.local()
        self._pool: ThreadPoolExecutor | None = None
        self._started = self.threads

    @contextmanager
    def running(self) -> Iterator[None]:
        self._local = threading.local()  # replicas of an earlier use may be stale
        self._started = self.threads
        pool = ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,))
        with super().running(), _torch_threads(1), pool:
            self._pool = pool
            try:
                yield
            finally:
                self._pool = None

    def split(self, episode: Episode) -> list[Episode]:
        return [episode.tasks(t, t + 1) for t in range(len(episode))]

    def map(self, function: Callable[[Method, P], R], parts: Sequence[P]) -> list[R]:
        assert self._pool is not None, "an executor is used inside its running() block"
        # All at once, unless memory turned out to be short: then only as many as may be in it.
        most = self.threads if self.threads < self._started else max(1, len(parts))
        found: list[R] = []
        for start in range(0, len(parts), most):
            run = parts[start : start + most]
            found += self._pool.map(lambda part: function(self._replica(), part), run)
        return found

    def at_once(self, tasks: int) -> int:
        return min(tasks, self.threads)

    def limit(self, tasks: int) -> None:
        self.threads = min(tasks, self.threads)

    def gradients(
        self, episode: Episode, players: Mapping[str, Player], turn: Sequence[str]
    ) -> Gradients:
        if len(episode) > 1:
            return super().gradients(episode, players, turn)
        with _torch_threads(self.threads), self.set_up(episode.query.device):
            one = differentiate(self.method, episode, players, turn)
        return reduce_over_tasks([one], players, 1)

    def _replica(self) -> Method:
        original, own = getattr(self._local, "pair", (None, None))
        if own is None or original is not self.method or own.training != self.method.training:
            own = replica(self.method)
            self._local.pair = self.method, own
        return own


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
