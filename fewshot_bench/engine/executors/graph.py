"""CUDA graphs of whole turns of a training step, and of chunks of an evaluation.

What changes from step to step are tensors outside of it: the place of its episodes' indices, which
are drawn for many steps at once, and the learning rates. Before a replay the method is compared
with what it was when the same work was last run directly (``conditions``); where it differs, the
work is run directly once more, and captured anew after that.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from fewshot_bench.engine.executors.base import Eager, Executor, Gradients, Packed, Prediction, R
from fewshot_bench.engine.executors.conditions import Same, captured_unchanged, changed, conditions
from fewshot_bench.engine.timing import Shared
from fewshot_bench.episode import Episode
from fewshot_bench.errors import PluginError
from fewshot_bench.method import Method
from fewshot_bench.sampling.base import EpisodeSource, Indices
from fewshot_bench.sampling.batches import BatchSource
from fewshot_bench.utils.devices import EventClock, make_stream

logger = logging.getLogger(__name__)

# What a turn does with its episodes; it calls the function when a phase ends.
Body = Callable[[Callable[[], Episode], Callable[[], None]], Gradients]
Graph = torch.cuda.CUDAGraph
Turn = tuple[int, int]  # its place in a step, and the source of its episodes
AHEAD = 4096  # episodes whose indices are drawn together, at most
STEPS_AHEAD = 64
MOST_FAILED = 3  # turns in a row that had to be run directly although they might be captured


class CudaGraphs(Eager):
    """As :class:`Eager`, with whole steps (of the training loop) and chunks of evaluations."""

    default_name = "graph"
    graph = True

    def __init__(self, method: Method, name: str | None = None, **settings: Any) -> None:
        super().__init__(method, name, **settings)
        self.chunk: ChunkGraph | None = None  # the newest
        self.captures = True  # whether chunks can be captured, as far as is known
        self._stream: torch.cuda.Stream | None = None

    def release(self) -> bool:
        return self.chunk is not None and self.chunk.release()

    def stream(self, device: torch.device) -> torch.cuda.Stream | None:
        if self._stream is None:
            self._stream = make_stream(device)
        return self._stream

    def chunk_graph(self, source: EpisodeSource, size: int) -> ChunkGraph | None:
        """The graph of the evaluation before, if of the same source and size, else a new one."""
        if not self.captures:
            return None
        chunk = self.chunk
        if chunk is None or (chunk.method, chunk.source, chunk.size) != (self.method, source, size):
            self.release()
            self.chunk = ChunkGraph(self.method, source, size)
        return self.chunk


def capture(work: Callable[[], R], device: torch.device) -> tuple[Graph, R]:
    """Capture some work in the current stream: the graph, and what the work gave (no numbers yet).

    RuntimeError for a wait for the device, or a copy from the host.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream(device)):
        result = work()
    return graph, result


def capture_error(error: BaseException) -> str:
    """One line on what made a capture fail: the first error; to end the capture raises another."""
    while not isinstance(error, PluginError) and error.__context__ is not None:
        error = error.__context__
    return (str(error).splitlines() or [type(error).__name__])[0]


def make_capturable(optimizers: Collection[Optimizer], device: torch.device) -> str | None:
    """Switch optimizers to state and rates that live on the device; what prevents it, or None."""
    for optimizer in optimizers:
        if "capturable" not in optimizer.defaults:
            return f"{type(optimizer).__name__} has no capturable form"
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["capturable"] = True
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device)
    return None


class Ahead:
    """Indices of the episodes of several turns to come, drawn together in one CUDA graph.

    The many small operations of a sampler take as long for one batch as for fifty. The source has
    been asked for a batch before, so that its first one is checked. ``size``: episodes of a turn;
    ``every``: from the first one of a turn to that of the next turn that this is for.
    """

    def __init__(
        self, source: EpisodeSource | BatchSource, size: int, every: int, device: torch.device
    ) -> None:
        self.source, self.every = source, every
        self.turns = max(1, min(STEPS_AHEAD, AHEAD // size))
        self._size, self._begin = size, -1
        # Held as long as the graph: a replay reads them where they were when it was captured.
        self._first = torch.zeros((), dtype=torch.int64, device=device)
        self._place = torch.zeros((), dtype=torch.int64, device=device)
        self._rows = torch.arange(size, device=device)
        self._starts = torch.arange(self.turns, device=device).unsqueeze(1) * every
        self.indices: Any
        self.graph, self.indices = capture(lambda: source.indices(self.ids()), device)

    def ids(self) -> Tensor:
        return (self._first + self._starts + self._rows).flatten()

    def holds(self, first: int) -> bool:
        return self._begin >= 0 and 0 <= first - self._begin < self.turns * self.every

    def draw(self, first: int) -> None:
        """Draw those of this turn and of those after it."""
        self._begin = first
        self._first.fill_(first)
        self.graph.replay()

    def go_to(self, first: int) -> None:
        """Make the turn with this first episode current; ConfigError: the source ends before."""
        if isinstance(self.source, EpisodeSource):
            self.source.sampler.require(range(first, first + self._size))
        self._place.fill_((first - self._begin) // self.every * self._size)

    def episode(self) -> Episode:
        rows = self._place + self._rows
        current = self.indices.map(lambda part: part.index_select(0, rows))
        return self.source.deliver(current)


class CapturedTurn:
    """A turn as a CUDA graph; ``ahead`` has its episodes. Raises as :func:`capture`."""

    def __init__(self, body: Body, ahead: Ahead, device: torch.device) -> None:
        self.ahead = ahead
        self.drawn: Shared | None = None  # when its indices were
        clock = EventClock(device)
        self.marks: list[Any] = []  # one more than there are phases; read after a replay

        def mark() -> None:
            self.marks.append(clock.now())

        def turn() -> Packed:
            mark()
            return Packed([body(ahead.episode, mark)])

        self.graph, self.packed = capture(turn, device)

    def replay(self) -> Gradients:
        """Do the turn that ``ahead`` is at; its numbers, copied."""
        self.graph.replay()
        [result] = self.packed.unpacked(self.packed.values.clone())
        return result


class TurnGraphs:
    """The graphs of a training's turns, each as long as it is valid.

    Between replays other code runs: a validation, at another way perhaps, for which a method may
    replace a tensor that it stores. Afterwards a graph would read freed memory.
    """

    def __init__(self, method: Method, device: torch.device) -> None:
        self._method, self._device = method, device
        self._graphs: dict[Turn, CapturedTurn] = {}
        self._ran_with: dict[Turn, Any] = {}  # of the newest time that a turn was run directly
        self._valid: set[Turn] = set()  # nothing but replays has run since they were compared
        self._in_vain = Counter[Turn]()

    def __len__(self) -> int:
        return len(self._graphs)

    def get(self, turn: Turn, capture: Callable[[], CapturedTurn]) -> CapturedTurn | None:
        """The graph of a turn, or RuntimeError if there can be none; None: run it directly."""
        if turn in self._valid:
            return self._graphs[turn]
        now = conditions(self._method, self._device)
        before = self._ran_with.get(turn, [])
        if now != before:
            self._graphs.pop(turn, None)
            self._in_vain[turn] += 1
            if self._in_vain[turn] > MOST_FAILED:
                raise RuntimeError(f"{changed(before, now)} changes from step to step")
            return None
        if turn not in self._graphs:
            self.compare_again()
            with captured_unchanged(self._method, self._device, now):
                self._graphs[turn] = capture()
        self._valid.add(turn)
        self._in_vain[turn] = 0
        return self._graphs[turn]

    def ran_directly(self, turn: Turn) -> None:
        self._ran_with[turn] = conditions(self._method, self._device)
        self.compare_again()

    def compare_again(self) -> None:
        """Other code than replays has run, which may have changed the method."""
        self._valid.clear()


class ChunkGraph:
    """Gather, ``adapt`` and ``predict`` of a chunk of an evaluation as a CUDA graph, in one stream.

    The first chunk of an evaluation is run directly, with all that is checked and warmed up there.
    Those that follow, also of later evaluations of the same source, are replays of one graph, with
    the weights at its addresses. A last chunk of fewer than ``size`` tasks is filled up.
    """

    def __init__(self, method: Method, source: EpisodeSource, size: int) -> None:
        # All that a replay reads is held: the method, the images and, below, the indices.
        self.method, self.source, self.size = method, source, size
        self._table = source.table
        self._ran_with: Any = None  # of the newest whole chunk that was run directly
        self._graph: Graph | None = None
        self._inside: tuple[Indices, Prediction] | None = None  # of the graph
        self._replays = 0

    def predict(self, executor: CudaGraphs, indices: Indices) -> Prediction | None:
        """Predict a chunk by a replay, its times NaN after the next one; None: run it directly."""
        whole = self._filled(indices)
        if whole is None or not executor.captures:
            return None
        if self._conditions(executor) != self._ran_with:
            self.release()
            return None
        if self._graph is None:
            self._capture(executor, whole)
        return self._replay(whole).first(len(indices.key)) if self._graph else None

    def ran_directly(self, executor: Executor, tasks: int) -> None:
        """So many tasks were run directly and have passed: the next chunk may be captured."""
        if tasks == self.size:
            self._ran_with = self._conditions(executor)

    def release(self) -> bool:
        """Free the graph and its memory; False if there was none."""
        present = self._graph is not None
        self._graph = self._inside = None
        return present

    def _filled(self, indices: Indices) -> Indices | None:
        """A whole chunk, the last task several times; None where that would change the others."""
        missing = self.size - len(indices.key)
        if missing and not self.method.batchable:
            return None
        filled: Indices = indices.map(
            lambda part: torch.cat([part, part[-1:].expand(missing, *part.shape[1:])])
        )
        return filled if missing else indices

    def _capture(self, executor: CudaGraphs, indices: Indices) -> None:
        """Capture; if that fails, log why, and do not try again with this executor."""
        why, device = None, self._table.device
        *_, before = self._ran_with  # of the method
        held = indices.map(torch.clone)
        try:
            with captured_unchanged(self.method, device, before):
                graph, prediction = capture(
                    lambda: executor.predict_unchecked(self.source.deliver(held)), device
                )
            self._graph, self._inside = graph, (held, prediction)
        except Exception as error:
            why = capture_error(error)
        if why is not None:  # here, where the error and the tensors that its frames hold are gone
            executor.captures = False
            logger.warning("evaluation: eager, because no CUDA graph could be captured: %s", why)

    def _replay(self, indices: Indices) -> Prediction:
        assert self._graph is not None
        assert self._inside is not None
        held, prediction = self._inside
        held.copy_(indices)
        self._graph.replay()
        self._replays += 1
        calls = [
            replace(call, laps=partial(self._laps, call.laps, self._replays))
            for call in prediction.calls
        ]
        return Prediction(prediction.logits.clone(), calls)

    def _laps(self, read: Callable[[], Sequence[float]], replay: int) -> Sequence[float]:
        return read() if replay == self._replays else (math.nan, math.nan)

    def _conditions(self, executor: Executor) -> Any:
        """What a graph depends on besides the numbers in its tensors; equal while it is valid."""
        table, dtype = self.source.table, self.source.dtype
        settings = (executor.strategy, executor.precision, executor.task_chunk, dtype)
        return (settings, Same(table), conditions(self.method, self._table.device))
