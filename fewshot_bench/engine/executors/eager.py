"""How a batch of episodes is run, and what comes out of it.

Every lowering gives the same gradients; they differ in speed and memory. :class:`Eager` runs the
whole batch in one call, or in chunks that bound its memory; the others build on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from fewshot_bench.engine.heap import keep_freed_memory
from fewshot_bench.engine.hidden import repeatable, unchanged
from fewshot_bench.engine.precision import FP32, Precision
from fewshot_bench.engine.prediction import Call, Kept, Prediction, joined_predictions
from fewshot_bench.engine.timing import Stopwatch
from fewshot_bench.episode import Episode
from fewshot_bench.errors import PluginError, plugin_errors
from fewshot_bench.method import Losses, Method, Player, losses_call, title_of
from fewshot_bench.nn import Strategy, per_task_strategy
from fewshot_bench.nn.norm import observed

EMBEDDED_AT_ONCE = 100  # images: about those of an episode


@dataclass
class Gradients:
    """What one batch gives.

    Arguments:
        losses: {player: [T]}, of every player that the method reports.
        gradients: {player: one tensor per parameter}, of the players that move.
        log: {name: [T]}.
        buffers: {name: [T, ...]}.
        norms: {player: norm of its gradient}, filled in by the loop.
        weights: {player: its largest weight after the step}, filled in by the loop.
    """

    losses: dict[str, Tensor]
    gradients: dict[str, list[Tensor]]
    log: dict[str, Tensor]
    buffers: dict[str, Tensor]
    norms: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)

    def numbers(self) -> Iterator[dict[str, Tensor]]:
        """What is read later: everything but gradients and buffers."""
        yield from (self.losses, self.log, self.norms, self.weights)


class Packed:
    """The numbers of some results in one tensor, to be copied or read at once."""

    def __init__(self, results: Sequence[Gradients]) -> None:
        self._named = [
            [[(name, v.shape) for name, v in numbers.items()] for numbers in result.numbers()]
            for result in results
        ]
        values = [v.detach() for r in results for numbers in r.numbers() for v in numbers.values()]
        # A method may log a number that it has on the host.
        self.values = torch.cat([v.to(values[0].device).flatten() for v in values])

    def unpacked(self, values: Tensor) -> list[Gradients]:
        """The results again, of these values in place of their own; without gradients."""
        sizes = [shape.numel() for result in self._named for n in result for _, shape in n]
        parts = iter(values.split(sizes))
        results = []
        for named in self._named:
            losses, log, norms, weights = (
                {name: next(parts).view(shape) for name, shape in numbers} for numbers in named
            )
            results.append(Gradients(losses, {}, log, {}, norms, weights))
        return results


class Eager:
    """The whole batch in one call.

    Arguments:
        method: what is run.
        name: of this lowering, for the record.
        strategy: how per-task weights are run; see :func:`fewshot_bench.nn.per_task`.
        precision: of the arithmetic.
        task_chunk: tasks in a call at most; None: all of the batch.
        graph: whether a whole step, and a chunk of an evaluation, may be captured in a CUDA graph.
        tell: takes a line on what could not be done as planned.
    """

    def __init__(
        self,
        method: Method,
        name: str = "eager",
        *,
        strategy: Strategy = "auto",
        precision: Precision = FP32,
        task_chunk: int | None = None,
        graph: bool = False,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.method, self.name, self.graph = method, name, graph
        self.tell, self.kept = tell, Kept()
        self.strategy: Strategy = strategy
        self.precision, self.task_chunk = precision, task_chunk

    def gradients(
        self, episode: Episode, players: Mapping[str, Player], turn: Sequence[str]
    ) -> Gradients:
        """Losses of the batch, and each moving player's own gradient."""
        parts = []
        for part in self.chunks(episode):
            with self.set_up(part.query.device):
                parts.append(differentiate(self.method, part, players, turn))
        return reduce_over_tasks(parts, players, len(episode))

    def predict(self, episode: Episode) -> Prediction:
        """Learn and classify every task of the batch; times are shared out equally.

        Raises:
            PluginError: the method draws random numbers without a key, or changes a tensor of its
                own.
        """
        with repeatable(self.method, "adapt() or predict()", lambda: self.one(episode)):
            return self.unchecked(episode)

    def one(self, episode: Episode) -> Prediction:
        """The first task of a batch (all of it where tasks influence each other), here and now."""
        part = episode.tasks(0, 1) if self.method.batchable else episode
        return self._predict(part)

    def unchecked(self, episode: Episode) -> Prediction:
        """As :meth:`predict`, of a method that has passed its check of random numbers."""
        return joined_predictions([self._predict(part) for part in self.chunks(episode)])

    def _predict(self, episode: Episode) -> Prediction:
        device = episode.query.device
        with torch.enable_grad(), self.set_up(device), unchanged(self.method, "predict"):
            watch = Stopwatch(device)
            with plugin_errors(f"{title_of(self.method)}.adapt()"):
                state = self.method.adapt(episode.support)
            watch.mark()
            with plugin_errors(f"{title_of(self.method)}.predict()"):
                logits = self.method.predict(state, episode.query).detach()
            watch.mark()
        return Prediction(logits, [Call(len(episode), len(episode), watch.laps)])

    def embed(self, images: Callable[[Tensor], Tensor], count: int, device: torch.device) -> Tensor:
        """What the method sees of each image: [count, ...].

        Arguments:
            images: from positions [M] to images [M, C, H, W].
            count: how many there are.
            device: that they are on.
        """
        everything = torch.arange(count, device=device)
        with repeatable(self.method, "embed()", lambda: self._embed(images(everything[:1]))):
            parts = everything.split(EMBEDDED_AT_ONCE)
            return torch.cat(self._embedded(images, parts))

    def _embedded(
        self, images: Callable[[Tensor], Tensor], parts: Sequence[Tensor]
    ) -> list[Tensor]:
        return [self._embed(images(part)) for part in parts]

    @torch.no_grad()
    def _embed(self, images: Tensor) -> Tensor:
        with self.set_up(images.device), unchanged(self.method, "embed"):
            method: Any = self.method  # one that declares embeds
            return cast(Tensor, method.embed(images.unsqueeze(0)).squeeze(0))

    def at_once(self, tasks: int) -> int:
        """How many tasks of a batch are in memory at the same time."""
        return min(tasks, self.task_chunk or tasks)

    def parts(self, tasks: int) -> int:
        """In how many calls of the method, one after the other, such a batch is run."""
        return -(-tasks // self.at_once(tasks))

    def shrink(self, tasks: int) -> bool:
        """Hold fewer tasks of such a batch at the same time, from now on; whether that can be."""
        now = self.at_once(tasks)
        if now == 1 or not self.method.batchable:
            return False
        self.task_chunk = (now + 1) // 2
        return True

    def hold(self, tasks: int) -> None:
        """Hold at most so many tasks at the same time, from now on."""
        self.task_chunk = min(tasks, self.task_chunk or tasks)

    def release(self) -> bool:
        """Give up the memory that is held for the next evaluation; whether there was some."""
        return self.kept.graph is not None and self.kept.graph.release()

    def chunks(self, episode: Episode) -> list[Episode]:
        """The batch in parts of at most ``task_chunk`` tasks."""
        size = self.task_chunk or len(episode)
        if size >= len(episode):
            return [episode]
        return [episode.tasks(t, t + size) for t in range(0, len(episode), size)]

    @contextmanager
    def set_up(self, device: torch.device) -> Iterator[None]:
        """This thread's settings for a call of the method."""
        with per_task_strategy(self.strategy), self.precision.autocast(device):
            yield

    @contextmanager
    def running(self) -> Iterator[None]:
        """Hold whatever the lowering needs while it is in use."""
        keep_freed_memory()
        with self.precision.applied():
            yield


def differentiate(
    method: Method, episode: Episode, players: Mapping[str, Player], turn: Sequence[str]
) -> Gradients:
    """Losses, and the gradient of each moving player's summed loss by its own parameters.

    Running statistics are collected here, whatever the method does. What it proposes itself for a
    buffer goes first.
    """
    call = losses_call(episode)
    with observed(method, len(episode)) as statistics, unchanged(method, call):
        with plugin_errors(f"{title_of(method)}.{call}()"):
            losses: Losses = getattr(method, call)(episode)
        gradients = _gradients_of(losses, method, len(episode), players, turn)
    return Gradients(
        {name: loss.detach() for name, loss in losses.players.items()},
        gradients,
        {name: value.detach() for name, value in losses.log.items()},
        statistics | {name: value.detach() for name, value in losses.buffers.items()},
    )


def _gradients_of(
    losses: Losses, method: Method, tasks: int, players: Mapping[str, Player], turn: Sequence[str]
) -> dict[str, list[Tensor]]:
    """Each moving player's own; see :func:`differentiate`."""
    missing = [name for name in turn if name not in losses.players]
    if missing:
        raise PluginError(
            f"{title_of(method)}.losses() gives no loss for player '{missing[0]}'; it gives: "
            f"{', '.join(losses.players) or 'none'}."
        )
    gradients = {}
    for name in turn:
        loss = losses.players[name]
        if loss.shape != (tasks,):
            raise PluginError(
                f"{title_of(method)}.losses(): the loss of player '{name}' has shape "
                f"{tuple(loss.shape)}; it has to be one number per task, ({tasks},)."
            )
        if not loss.requires_grad:
            raise PluginError(
                f"{title_of(method)}.losses(): the loss of player '{name}' depends on no parameter "
                "that requires gradients, so that nothing would train."
            )
        parameters = list(players[name].parameters.values())
        gradients[name] = list(
            torch.autograd.grad(
                loss.sum(), parameters, retain_graph=name != turn[-1], allow_unused=True,
                materialize_grads=True,
            )
        )  # fmt: skip
    return gradients


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
        if players[name].reduction == "mean":
            total = [g / tasks for g in total]
        gradients[name] = total

    def joined(field: str) -> dict[str, Tensor]:
        names = getattr(parts[0], field)
        return {name: torch.cat([getattr(part, field)[name] for part in parts]) for name in names}

    # A part may have passed other layers than the first: the mean is over those that did.
    names = dict.fromkeys(name for part in parts for name in part.buffers)
    buffers = {
        name: torch.cat([part.buffers[name] for part in parts if name in part.buffers])
        for name in names
    }
    return Gradients(joined("losses"), gradients, joined("log"), buffers)
