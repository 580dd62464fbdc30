"""Task threads: on a CPU, one task at a time on each of several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from fewshot_bench.engine.executors.eager import (
    Eager,
    Gradients,
    differentiate,
    reduce_over_tasks,
)
from fewshot_bench.engine.prediction import Prediction, joined_predictions
from fewshot_bench.episode import Episode
from fewshot_bench.method import Method, Player
from fewshot_bench.nn import replica

R = TypeVar("R")


class TaskThreads(Eager):
    """One task a call, tasks spread over threads; gradients are summed in episode order.

    Each thread owns a structural replica of the method, because ``functional_call`` swaps a
    module's tensors in place. Torch runs single-threaded meanwhile, but for a batch of one task,
    which gets all threads for its operations.
    """

    def __init__(self, method: Method, threads: int | None = None, **settings: Any) -> None:
        super().__init__(method, "threads", **settings)
        most = threads or torch.get_num_threads()
        # A thread holds one task: to hold fewer tasks is to use fewer threads.
        self.threads = min(most, self.task_chunk or most)
        self._local = threading.local()
        self._pool: ThreadPoolExecutor | None = None
        self._started = self.threads

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start the threads, and stop them at the end."""
        self._local = threading.local()  # replicas of an earlier use may be stale
        self._started = self.threads
        pool = ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,))
        with super().running(), _torch_threads(1), pool:
            self._pool = pool
            try:
                yield
            finally:
                self._pool = None

    def at_once(self, tasks: int) -> int:
        return min(tasks, self.threads)

    def shrink(self, tasks: int) -> bool:
        now = self.at_once(tasks)
        self.threads = (now + 1) // 2
        return now > 1

    def hold(self, tasks: int) -> None:
        self.threads = min(tasks, self.threads)

    def gradients(
        self, episode: Episode, players: Mapping[str, Player], turn: Sequence[str]
    ) -> Gradients:
        def one(task: Episode) -> Gradients:
            with self.set_up(task.query.device):
                return differentiate(self._own(), task, players, turn)

        if len(episode) == 1:
            with _torch_threads(self.threads):
                return super().gradients(episode, players, turn)
        tasks = [episode.tasks(t, t + 1) for t in range(len(episode))]
        return reduce_over_tasks(self._each(one, tasks), players, len(episode))

    def unchecked(self, episode: Episode) -> Prediction:
        def one(task: Episode) -> Prediction:
            return Eager(self._own(), **self._settings())._predict(task)

        tasks = [episode.tasks(t, t + 1) for t in range(len(episode))]
        return joined_predictions(self._each(one, tasks))

    def _embedded(
        self, images: Callable[[Tensor], Tensor], parts: Sequence[Tensor]
    ) -> list[Tensor]:
        def one(part: Tensor) -> Tensor:
            return Eager(self._own(), **self._settings())._embed(images(part))

        return self._each(one, parts)

    def _settings(self) -> dict[str, Any]:
        return {"strategy": self.strategy, "precision": self.precision}

    def _each(self, function: Callable[[Any], R], parts: Sequence[Any]) -> list[R]:
        assert self._pool is not None, "a lowering is used inside its running() block"
        found: list[R] = []
        for start in range(0, len(parts), most := max(1, self._at_once(len(parts)))):
            found += self._pool.map(function, parts[start : start + most])
        return found

    def _at_once(self, parts: int) -> int:
        """All, unless memory turned out to be short: then no more than are to be in it."""
        return self.threads if self.threads < self._started else parts

    def _own(self) -> Method:
        """This thread's replica, in the mode (train or eval) of the original."""
        own: Method | None = getattr(self._local, "method", None)
        if own is None or own.training != self.method.training:
            own = replica(self.method)
            self._local.method = own
        return own


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """Let torch's operations use so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
