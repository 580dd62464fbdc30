"""A whole turn of a training step in a CUDA graph.

A graph is captured once and replayed for every step: its thousands of small kernels are then
launched by one call. What changes from step to step are tensors that stand outside of it: the
place of its episodes' indices, which are drawn for many steps at once, and the learning rates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from fewshot_bench.engine.conditions import captured_unchanged, changed, conditions
from fewshot_bench.engine.executors.eager import Eager, Gradients, Packed
from fewshot_bench.engine.timing import Shared
from fewshot_bench.episode import Episode
from fewshot_bench.errors import PluginError
from fewshot_bench.method import Method
from fewshot_bench.sampling.base import EpisodeSource
from fewshot_bench.sampling.batches import BatchSource
from fewshot_bench.utils.devices import EventClock, make_stream

# What a turn does with its episodes; it calls the function when a phase ends.
Body = Callable[[Callable[[], Episode], Callable[[], None]], Gradients]
R = TypeVar("R")
Graph = torch.cuda.CUDAGraph
Turn = tuple[int, int]  # its place in a step, and the source of its episodes
AHEAD = 4096  # episodes whose indices are drawn together, at most
STEPS_AHEAD = 64
IN_VAIN = 3  # turns in a row that had to be run directly although they might be captured


def stream_for(lowering: Eager, device: torch.device) -> torch.cuda.Stream | None:
    """The stream that a lowering's evaluations are run in, where they may be captured."""
    if not lowering.graph:
        return None
    if lowering.kept.stream is None:
        lowering.kept.stream = make_stream(device)
    stream: torch.cuda.Stream | None = lowering.kept.stream
    return stream


def capture(work: Callable[[], R], device: torch.device) -> tuple[Graph, R]:
    """Capture some work in the current stream.

    Returns:
        The graph, and what the work gave, whose tensors have no numbers before a replay.

    Raises:
        RuntimeError: something in it cannot be captured (a wait for the device, a copy from the
            host).
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream(device)):
        result = work()
    return graph, result


class Ahead:
    """Indices of the episodes of several turns to come, drawn together in one CUDA graph.

    The hundreds of small operations of a sampler take as long for one batch as for fifty. What is
    asked of the source is ``indices`` and ``deliver``, which ``batch`` is made of.

    Arguments:
        source: has been asked for a batch before, so that its first one is checked.
        size: episodes of a turn.
        every: from the first episode of a turn to that of the next one that this is for.
        device: of everything.
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
        """Numbers of the episodes of all turns, from the first on."""
        return (self._first + self._starts + self._rows).flatten()

    def holds(self, first: int) -> bool:
        """Whether the indices of the turn whose first episode this is are drawn."""
        return self._begin >= 0 and 0 <= first - self._begin < self.turns * self.every

    def draw(self, first: int) -> None:
        """Draw those of the turn with this first episode and of those after it."""
        self._begin = first
        self._first.fill_(first)
        self.graph.replay()

    def go_to(self, first: int) -> None:
        """Make the turn with this first episode the current one.

        Raises:
            ConfigError: the source ends before.
        """
        if isinstance(self.source, EpisodeSource):
            self.source.sampler.require(range(first, first + self._size))
        self._place.fill_((first - self._begin) // self.every * self._size)

    def episode(self) -> Episode:
        """The batch of the current turn."""
        rows = self._place + self._rows
        current = self.indices.map(lambda part: part.index_select(0, rows))
        return self.source.deliver(current)


class CapturedTurn:
    """A turn as a CUDA graph.

    Arguments:
        body: the turn.
        ahead: where its episodes come from.
        device: of everything.

    Raises:
        RuntimeError: something in the turn cannot be captured (a wait for the device, a copy from
            the host).
    """

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
    """The graphs of a training's turns, each as long as it holds.

    Between replays other code runs: a validation, at another way perhaps, for which a method may
    replace a tensor that it keeps. Afterwards a graph would read what is no more. So the method is
    held against what it was when the turn was last run directly; where that differs, the turn is
    run directly once more, and captured anew after that.

    Arguments:
        method: whose turns they are.
        device: of everything.
    """

    def __init__(self, method: Method, device: torch.device) -> None:
        self._method, self._device = method, device
        self._graphs: dict[Turn, CapturedTurn] = {}
        self._ran_with: dict[Turn, Any] = {}  # of the newest time that a turn was run directly
        self._hold: set[Turn] = set()  # nothing but replays has run since they were looked at
        self._in_vain: dict[Turn, int] = {}

    def __len__(self) -> int:
        return len(self._graphs)

    def of(self, turn: Turn, capture: Callable[[], CapturedTurn]) -> CapturedTurn | None:
        """The graph of a turn, captured now if there is none; None: the turn is to be run directly.

        Raises:
            RuntimeError: it cannot be captured.
        """
        if turn in self._hold:
            return self._graphs[turn]
        now = self._conditions()
        before = self._ran_with.get(turn, [])
        if now != before:
            self._graphs.pop(turn, None)
            self._in_vain[turn] = self._in_vain.get(turn, 0) + 1
            if self._in_vain[turn] > IN_VAIN:
                raise RuntimeError(f"{changed(before, now)} changes from step to step")
            return None
        if turn not in self._graphs:
            self.look_again()
            with captured_unchanged(self._method, self._device, now):
                self._graphs[turn] = capture()
        self._hold.add(turn)
        self._in_vain[turn] = 0
        return self._graphs[turn]

    def ran_directly(self, turn: Turn) -> None:
        """A turn was run directly and has passed."""
        self._ran_with[turn] = self._conditions()
        self.look_again()

    def look_again(self) -> None:
        """Other code than replays has run, which may have changed the method."""
        self._hold.clear()

    def _conditions(self) -> Any:
        return conditions(self._method, self._device)


def why_not(error: BaseException) -> str:
    """A line on what made a capture fail.

    After an error inside of it, to end the capture raises another, which says less.
    """
    while not isinstance(error, PluginError) and error.__context__ is not None:
        error = error.__context__
    return (str(error).splitlines() or [type(error).__name__])[0]


def make_capturable(optimizers: Sequence[Optimizer], device: torch.device) -> str | None:
    """Switch optimizers to state and rates that live on the device.

    Returns:
        What is in the way, or None.
    """
    for optimizer in optimizers:
        if "capturable" not in optimizer.defaults:
            return f"{type(optimizer).__name__} has no capturable form"
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["capturable"] = True
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device)
    return None
