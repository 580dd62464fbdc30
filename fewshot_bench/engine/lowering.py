"""How a batch of episodes is run: all at once, or each on a thread of its own.

Every lowering gives the same gradients; they differ in speed. On a CPU one task at a time, spread
over threads that each run torch single-threaded, is fastest; on a GPU all tasks together are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from fewshot_bench.engine.timing import Stopwatch
from fewshot_bench.episode import Episode
from fewshot_bench.errors import ConfigError, PluginError
from fewshot_bench.method import Method, Player
from fewshot_bench.nn import replica

R = TypeVar("R")


@dataclass
class Gradients:
    """What one batch gives.

    Arguments:
        losses: {player: [T]}, of every player that the method reports.
        gradients: {player: one tensor per parameter}, of the players that move.
        log: {name: [T]}.
        buffers: {name: [T, ...]}.
        norms: {player: norm of its gradient}, filled in by the loop.
    """

    losses: dict[str, Tensor]
    gradients: dict[str, list[Tensor]]
    log: dict[str, Tensor]
    buffers: dict[str, Tensor]
    norms: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Prediction:
    """Logits [T, Q, way], and the ms that each task took to learn and to classify: [T]."""

    logits: Tensor
    adapt_ms: Tensor
    predict_ms: Tensor


class Eager:
    """The whole batch in one call."""

    name = "eager"

    def __init__(self, method: Method) -> None:
        self.method = method

    def gradients(
        self, episode: Episode, players: Mapping[str, Player], turn: Sequence[str]
    ) -> Gradients:
        """Losses of the batch, and each moving player's own gradient."""
        return reduce_over_tasks(
            [differentiate(self.method, episode, players, turn)], players, len(episode)
        )

    def predict(self, episode: Episode) -> Prediction:
        """Learn and classify every task of the batch; times are shared out equally."""
        watch = Stopwatch(episode.query.device)
        with torch.enable_grad():
            state = self.method.adapt(episode.support)
            adapt_ms = watch.lap()
            logits = self.method.predict(state, episode.query).detach()
            predict_ms = watch.lap()
        tasks = len(episode)
        each = torch.ones(tasks) / tasks
        return Prediction(logits, each * adapt_ms, each * predict_ms)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Hold whatever the lowering needs while it is in use."""
        yield


class TaskThreads(Eager):
    """One task a call, tasks spread over threads; gradients are summed in episode order.

    Each thread owns a structural replica of the method, because ``functional_call`` swaps a
    module's tensors in place. Torch runs single-threaded meanwhile, but for a batch of one task,
    which gets all threads for its operations.
    """

    name = "threads"

    def __init__(self, method: Method, threads: int | None = None) -> None:
        super().__init__(method)
        self.threads = threads or torch.get_num_threads()
        self._local = threading.local()
        self._pool: ThreadPoolExecutor | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start the threads, and stop them at the end."""
        self._local = threading.local()  # replicas of an earlier use may be stale
        pool = ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,))
        with _torch_threads(1), pool:
            self._pool = pool
            try:
                yield
            finally:
                self._pool = None

    def gradients(
        self, episode: Episode, players: Mapping[str, Player], turn: Sequence[str]
    ) -> Gradients:
        def one(task: Episode) -> Gradients:
            return differentiate(self._own(), task, players, turn)

        if len(episode) == 1:
            with _torch_threads(self.threads):
                return super().gradients(episode, players, turn)
        return reduce_over_tasks(self._each(one, episode), players, len(episode))

    def predict(self, episode: Episode) -> Prediction:
        def one(task: Episode) -> Prediction:
            return Eager(self._own()).predict(task)

        parts = self._each(one, episode)
        return Prediction(
            *(torch.cat([getattr(part, name) for part in parts])
              for name in ("logits", "adapt_ms", "predict_ms"))
        )  # fmt: skip

    def _each(self, function: Callable[[Episode], R], episode: Episode) -> list[R]:
        assert self._pool is not None, "a lowering is used inside its running() block"
        tasks = [episode.tasks(t, t + 1) for t in range(len(episode))]
        return list(self._pool.map(function, tasks))

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


def differentiate(
    method: Method, episode: Episode, players: Mapping[str, Player], turn: Sequence[str]
) -> Gradients:
    """Losses, and the gradient of each moving player's summed loss by its own parameters."""
    losses = method.losses(episode)
    missing = [name for name in turn if name not in losses.players]
    if missing:
        raise PluginError(
            f"{type(method).__name__}.losses() gives no loss for player '{missing[0]}'; it gives: "
            f"{', '.join(losses.players) or 'none'}."
        )
    gradients = {}
    for name in turn:
        loss = losses.players[name]
        if loss.shape != (len(episode),):
            raise PluginError(
                f"{type(method).__name__}.losses(): the loss of player '{name}' has shape "
                f"{tuple(loss.shape)}; it has to be one number per task, ({len(episode)},)."
            )
        parameters = list(players[name].parameters.values())
        gradients[name] = list(
            torch.autograd.grad(
                loss.sum(), parameters, retain_graph=name != turn[-1], allow_unused=True,
                materialize_grads=True,
            )
        )  # fmt: skip
    return Gradients(
        {name: loss.detach() for name, loss in losses.players.items()},
        gradients,
        {name: value.detach() for name, value in losses.log.items()},
        {name: value.detach() for name, value in losses.buffers.items()},
    )


def reduce_over_tasks(
    parts: Sequence[Gradients], players: Mapping[str, Player], tasks: int
) -> Gradients:
    """Sum gradients in the order of the parts, divide where a player wants the mean."""
    gradients = {}
    for name, first in parts[0].gradients.items():
        total = list(first)
        for part in parts[1:]:
            total = [a.add_(b) for a, b in zip(total, part.gradients[name], strict=True)]
        if players[name].reduction == "mean":
            total = [g / tasks for g in total]
        gradients[name] = total

    def joined(field: str) -> dict[str, Tensor]:
        names = getattr(parts[0], field)
        return {name: torch.cat([getattr(part, field)[name] for part in parts]) for name in names}

    return Gradients(joined("losses"), gradients, joined("log"), joined("buffers"))


def choose(name: str, method: Method, device: torch.device) -> Eager:
    """The lowering of this name; ``auto``: task threads on a CPU, else eager.

    Raises:
        ConfigError: no such lowering, or the method couples the tasks of a batch.
    """
    threads = device.type == "cpu" and method.batchable
    if name == "auto":
        return TaskThreads(method) if threads else Eager(method)
    if name == "threads" and not threads:
        raise ConfigError(
            "--engine threads needs a CPU and a method whose tasks are independent; "
            "give --engine eager."
        )
    if name not in ("eager", "threads"):
        raise ConfigError(f"no engine '{name}'. Known: auto, eager, threads.")
    return TaskThreads(method) if name == "threads" else Eager(method)
