"""The base class of executors, the two for a CPU, and what they return.

Every executor gives the same gradients and predictions; they differ in speed and memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor

from fewshot_bench.engine.hidden_state import repeatable, unchanged
from fewshot_bench.engine.timing import Stopwatch
from fewshot_bench.episode import Episode
from fewshot_bench.errors import PluginError, plugin_errors
from fewshot_bench.method import Losses, Method, Player, losses_call, title_of
from fewshot_bench.nn import Strategy, per_task_strategy, replica
from fewshot_bench.nn.norm import observed
from fewshot_bench.sampling.base import EpisodeSource
from fewshot_bench.utils.devices import autocast
from fewshot_bench.utils.torch_private import tree_flatten, tree_unflatten

EMBEDDED_AT_ONCE = 100  # images: about those of an episode
# What convolutions and matrix products are computed in; weights and losses stay float32. tf32:
# 10-bit mantissas on GPUs that have them (elsewhere as fp32); bf16: torch's autocast.
Precision = Literal["fp32", "tf32", "bf16"]
P = TypeVar("P")
R = TypeVar("R")


@dataclass
class Gradients:
    """What one batch of episodes gives, by player or name; norms and weights come from the loop."""

    losses: dict[str, Tensor]  # [T], of every player that the method reports
    gradients: dict[str, list[Tensor]]  # one tensor per parameter, of the players that move
    log: dict[str, Tensor]  # [T, ...]
    buffers: dict[str, Tensor]  # [T, ...]
    norms: dict[str, Tensor] = field(default_factory=dict)  # of a player's gradient
    weights: dict[str, Tensor] = field(default_factory=dict)  # its largest one after the step


class Packed:
    """The numbers of some results (no gradients, no buffers) in one tensor, to be read at once."""

    def __init__(self, results: Sequence[Gradients]) -> None:
        numbers = [(r.losses, r.log, r.norms, r.weights) for r in results]
        leaves, self._spec = tree_flatten(numbers)
        self._shapes = [leaf.shape for leaf in leaves]
        # A method may log a number that it has on the host.
        self.values = torch.cat([v.detach().to(leaves[0].device).flatten() for v in leaves])

    def unpacked(self, values: Tensor) -> list[Gradients]:
        parts = values.split([shape.numel() for shape in self._shapes])
        leaves = [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]
        return [
            Gradients(losses, {}, log, {}, norms, weights)
            for losses, log, norms, weights in tree_unflatten(leaves, self._spec)
        ]


@dataclass(frozen=True)
class Call:
    tasks: int  # how many of its tasks are needed
    ran: int  # how many tasks it ran, the needed ones first
    laps: Callable[[], Sequence[float]]  # gives the ms to learn and to classify them; may wait


@dataclass
class Prediction:
    """Logits [T, Q, way], and the calls that gave them, in the order of the tasks."""

    logits: Tensor
    calls: list[Call]

    @property
    def adapt_ms(self) -> Tensor:
        """ms that each task took to learn, [T] on the host; a call's are shared out equally."""
        return self._per_task(0)

    @property
    def predict_ms(self) -> Tensor:
        """ms that each task took to classify, [T] on the host; shared out as well."""
        return self._per_task(1)

    def _per_task(self, lap: int) -> Tensor:
        return torch.cat([torch.ones(c.tasks) / c.ran * c.laps()[lap] for c in self.calls])

    def first(self, tasks: int) -> Prediction:
        calls, left = [], tasks
        for call in self.calls:
            calls.append(replace(call, tasks=min(call.tasks, left)))
            left -= calls[-1].tasks
        return Prediction(self.logits[:tasks], calls)


class Executor:
    """Runs a method on batches of episodes, in one call or in chunks; a subclass runs it otherwise.

    ``name``: for the record; ``task_chunk``: tasks in a call at most; None: all of the batch.
    """

    default_name: ClassVar[str]
    graph: ClassVar[bool] = False  # whether a step, and a chunk of an evaluation, may be captured

    def __init__(
        self, method: Method, name: str | None = None, *, strategy: Strategy = "auto",
        precision: Precision = "fp32", task_chunk: int | None = None,
    ) -> None:  # fmt: skip
        self.method, self.name = method, name or self.default_name
        self.strategy: Strategy = strategy
        self.precision: Precision = precision
        self.task_chunk = task_chunk

    def split(self, episode: Episode) -> list[Episode]:
        """The batch in the parts that :meth:`map` gets."""
        size = self.task_chunk or len(episode)
        if size >= len(episode):
            return [episode]
        return [episode.tasks(t, t + size) for t in range(0, len(episode), size)]

    def map(self, function: Callable[[Method, P], R], parts: Sequence[P]) -> list[R]:
        """``function(method, part)`` of each part, in their order; a thread has its own method."""
        return [function(self.method, part) for part in parts]

    def at_once(self, tasks: int) -> int:
        """How many tasks of a batch are in memory at the same time."""
        return min(tasks, self.task_chunk or tasks)

    def limit(self, tasks: int) -> None:
        """From now on, hold at most this many tasks at the same time."""
        self.task_chunk = min(tasks, self.task_chunk or tasks)

    def shrink(self, tasks: int) -> bool:
        """From now on, hold half as many tasks of such a batch at once; False if impossible."""
        now = self.at_once(tasks)
        if now == 1 or not self.method.batchable:
            return False
        self.limit((now + 1) // 2)
        return True

    def calls(self, tasks: int) -> int:
        """In how many calls of the method, one after the other, such a batch is run."""
        return -(-tasks // self.at_once(tasks))

    def gradients(
        self, episode: Episode, players: Mapping[str, Player], turn: Sequence[str]
    ) -> Gradients:
        def run(method: Method, part: Episode) -> Gradients:
            with self.set_up(part.query.device):
                return differentiate(method, part, players, turn)

        return reduce_over_tasks(self.map(run, self.split(episode)), players, len(episode))

    def predict(self, episode: Episode) -> Prediction:
        """Learn and classify every task of the batch.

        Raises PluginError if the method draws without a key or changes a tensor of its own.
        """
        with repeatable(self.method, "adapt() or predict()", lambda: self.predict_first(episode)):
            return self.predict_unchecked(episode)

    def predict_first(self, episode: Episode) -> Prediction:
        """Predict :meth:`first_task` in this thread."""
        return self._predict(self.method, self.first_task(episode))

    def first_task(self, episode: Episode) -> Episode:
        """The first task of a batch; all of it where tasks influence each other."""
        return episode.tasks(0, 1) if self.method.batchable else episode

    def predict_unchecked(self, episode: Episode) -> Prediction:
        """As :meth:`predict`, for a method that has passed its check of random numbers."""
        parts = self.map(self._predict, self.split(episode))
        if len(parts) == 1:
            return parts[0]
        logits = torch.cat([part.logits for part in parts])
        return Prediction(logits, [call for part in parts for call in part.calls])

    def _predict(self, method: Method, episode: Episode) -> Prediction:
        device = episode.query.device
        with torch.enable_grad(), self.set_up(device), unchanged(method, "predict"):
            watch = Stopwatch(device)
            with plugin_errors(f"{title_of(method)}.adapt()"):
                state = method.adapt(episode.support)
            watch.mark()
            with plugin_errors(f"{title_of(method)}.predict()"):
                logits = method.predict(state, episode.query).detach()
            watch.mark()
        return Prediction(logits, [Call(len(episode), len(episode), watch.laps)])

    def embed(self, images: Callable[[Tensor], Tensor], count: int, device: torch.device) -> Tensor:
        """What the method sees of each of ``count`` images: [count, ...].

        ``images`` is from positions [M] to images [M, C, H, W].
        """

        @torch.no_grad()
        def run(method: Method, positions: Tensor) -> Tensor:
            with self.set_up(device), unchanged(method, "embed"):
                return method.embedded(images(positions).unsqueeze(0)).squeeze(0)

        everything = torch.arange(count, device=device)
        with repeatable(self.method, "embed()", lambda: run(self.method, everything[:1])):
            return torch.cat(self.map(run, everything.split(EMBEDDED_AT_ONCE)))

    def stream(self, device: torch.device) -> Any:
        """The stream that evaluations are run in; None: the current one."""
        return None

    def chunk_graph(self, source: EpisodeSource, size: int) -> Any:
        """What replays chunks of an evaluation; None: they are run directly."""
        return None

    def release(self) -> bool:
        """Free the memory that is held for the next evaluation; False if there was none."""
        return False

    @contextmanager
    def set_up(self, device: torch.device) -> Iterator[None]:
        dtype = torch.bfloat16 if self.precision == "bf16" else None
        with per_task_strategy(self.strategy), autocast(device, dtype):
            yield

    @contextmanager
    def running(self) -> Iterator[None]:
        """Hold whatever the executor needs while it is in use."""
        with products_in(self.precision):
            yield


@contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """A block with torch's switches of TF32 set for this precision."""
    switches: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [switch.fp32_precision for switch in switches]
    for switch in switches:
        switch.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value


class Eager(Executor):
    """The whole batch in one call, or in chunks of ``task_chunk`` tasks that bound its memory."""

    default_name = "eager"


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
        self.threads = self._started = min(most, self.task_chunk or most)
        self._local = threading.local()
        self._pool: ThreadPoolExecutor | None = None

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


def differentiate(
    method: Method, episode: Episode, players: Mapping[str, Player], turn: Sequence[str]
) -> Gradients:
    """Losses, and the gradient of each moving player's summed loss by its own parameters.

    Running statistics are collected here; what the method itself proposes for a buffer comes first.
    PluginError if a loss is missing, has a wrong shape or no gradient.
    """
    call = losses_call(episode)
    gradients = {}
    with observed(method, len(episode)) as statistics, unchanged(method, call):
        with plugin_errors(f"{title_of(method)}.{call}()"):
            losses: Losses = getattr(method, call)(episode)
        for name in turn:
            loss = _loss_of(name, losses, title_of(method), len(episode))
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
        statistics | {name: value.detach() for name, value in losses.buffers.items()},
    )


def _loss_of(player: str, losses: Losses, title: str, tasks: int) -> Tensor:
    loss, known = losses.players.get(player), ", ".join(losses.players) or "none"
    if loss is None:
        fault = f" gives no loss for player '{player}'; it gives: {known}."
    elif loss.shape != (tasks,):
        fault = (
            f": expected one loss per task, shape ({tasks},), for player '{player}', got shape "
            f"{tuple(loss.shape)}."
        )
    elif not loss.requires_grad:
        fault = (
            f": the loss of player '{player}' depends on no parameter that requires gradients, so "
            "nothing would train."
        )
    else:
        return loss
    raise PluginError(f"{title}.losses(){fault}")


def reduce_over_tasks(
    parts: Sequence[Gradients], players: Mapping[str, Player], tasks: int
) -> Gradients:
    """Sum gradients in the order of the parts, divide where a player wants the mean."""
    gradients = {}
    for name, first in parts[0].gradients.items():
        total = list(first)
        for i, part in enumerate(parts[1:]):
            both = list(zip(total, part.gradients[name], strict=True))
            # The first may be views of one number (the gradient of a sum): never added to.
            total = [a.add_(b) for a, b in both] if i else [a + b for a, b in both]
        mean = players[name].reduction == "mean"
        gradients[name] = [g / tasks for g in total] if mean else total
    losses, log, buffers = (
        _joined([getattr(part, kind) for part in parts]) for kind in ("losses", "log", "buffers")
    )
    return Gradients(losses, gradients, log, buffers)


def _joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Concatenated; a part may have passed other layers than the first and lack their names."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: torch.cat([part[name] for part in parts if name in part]) for name in names}
