"""Chunks of an evaluation in a CUDA graph.

On a GPU a chunk is hundreds of small operations, and to launch them one by one takes longer than
they do. The first chunk of an evaluation is run directly, with all that is checked and warmed up
there. Those of its size that follow, and those of later evaluations of the same source (a
validation, again and again), are replays of one graph. A smaller last chunk is filled up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from fewshot_bench.engine.conditions import Same, captured_unchanged, conditions
from fewshot_bench.engine.executors.eager import Eager
from fewshot_bench.engine.executors.graph import Graph, capture, why_not
from fewshot_bench.engine.prediction import Prediction
from fewshot_bench.method import Method
from fewshot_bench.sampling.base import EpisodeSource, Indices


class ChunkGraph:
    """Gather, ``adapt`` and ``predict`` of a chunk as a CUDA graph; used in one stream.

    The graph reads addresses, and uses whatever stands there at a replay: weights that were loaded
    in their place. Before each replay the method is held against what it was when a chunk was last
    run directly. If a tensor has moved, or a mode or another attribute has changed, the chunk is
    run directly, and the next one is captured anew.

    Arguments:
        method: as a lowering has it.
        source: of the episodes.
        size: tasks of a chunk.
    """

    def __init__(self, method: Method, source: EpisodeSource, size: int) -> None:
        # All that a replay reads is held: the method, the images and, below, the indices.
        self._method, self._source, self._size = method, source, size
        self._table = source.table
        self._ran_with: Any = None  # of the newest whole chunk that was run directly
        self._graph: Graph | None = None
        self._indices: Indices | None = None
        self._prediction: Prediction | None = None
        self._replays = 0

    @classmethod
    def of(cls, lowering: Eager, source: EpisodeSource, size: int) -> ChunkGraph | None:
        """That of the evaluation before, if it was of the same source and size, else a new one.

        There is one at a time, because each holds the memory of a chunk. None: chunks are not to
        be captured here.
        """
        kept, method = lowering.kept, lowering.method
        if not (lowering.graph and kept.captures):
            return None
        if kept.graph is None or not kept.graph.is_for(method, source, size):
            lowering.release()
            kept.graph = cls(method, source, size)
        graph: ChunkGraph = kept.graph
        return graph

    def is_for(self, method: Method, source: EpisodeSource, size: int) -> bool:
        """Whether it is of these."""
        return self._method is method and self._source is source and self._size == size

    def predict(self, lowering: Eager, indices: Indices) -> Prediction | None:
        """Predict a chunk, of at most ``size`` tasks, by a replay.

        Returns:
            The prediction, whose times are to be read before the next replay (they are NaN after
            it); None: the chunk is to be run directly.
        """
        whole = self._filled(indices)
        if whole is None or not lowering.kept.captures:
            return None
        if self._conditions(lowering) != self._ran_with:
            self.release()
            return None
        if self._graph is None and not self._captured(lowering, whole):
            return None
        return self._replay(whole).first(len(indices.key))

    def ran_directly(self, lowering: Eager, tasks: int) -> None:
        """So many tasks were run directly and have passed: the next chunk may be captured."""
        if tasks == self._size:
            self._ran_with = self._conditions(lowering)

    def release(self) -> bool:
        """Give up the graph and its memory; whether there was one."""
        there = self._graph is not None
        self._graph = self._indices = self._prediction = None
        return there

    def _filled(self, indices: Indices) -> Indices | None:
        """A whole chunk, the last task several times; None where that would change the others."""
        missing = self._size - len(indices.key)
        if not missing:
            return indices
        if not self._method.batchable:
            return None
        filled: Indices = indices.map(
            lambda part: torch.cat([part, part[-1:].expand(missing, *part.shape[1:])])
        )
        return filled

    def _captured(self, lowering: Eager, indices: Indices) -> bool:
        """Capture; if that cannot be, say why, and that is that for this lowering."""
        why = None
        *_, before = self._ran_with  # of the method
        try:
            with captured_unchanged(self._method, self._table.device, before):
                self._capture(lowering, indices)
        except Exception as error:
            why = why_not(error)
        # Here, where the error and the tensors that its frames hold are gone.
        if why is None:
            return True
        self.release()
        lowering.kept.captures = False
        lowering.tell(f"evaluation: eager, because no CUDA graph could be captured: {why}")
        return False

    def _capture(self, lowering: Eager, indices: Indices) -> None:
        held = self._indices = indices.map(torch.clone)
        self._graph, self._prediction = capture(
            lambda: lowering.unchecked(self._source.deliver(held)), self._table.device
        )

    def _replay(self, indices: Indices) -> Prediction:
        """A chunk's; its logits are copied."""
        assert self._graph is not None
        assert self._indices is not None
        assert self._prediction is not None
        self._indices.copy_(indices)
        self._graph.replay()
        self._replays += 1
        calls = [
            replace(call, laps=partial(self._laps, call.laps, self._replays))
            for call in self._prediction.calls
        ]
        return Prediction(self._prediction.logits.clone(), calls)

    def _laps(self, read: Callable[[], Sequence[float]], replay: int) -> Sequence[float]:
        """The times of this replay, if no other has overwritten them."""
        return read() if replay == self._replays else (math.nan, math.nan)

    def _conditions(self, lowering: Eager) -> Any:
        """What a graph rests on besides the numbers in its tensors; equal as long as it holds."""
        source, device = self._source, self._table.device
        settings = (lowering.strategy, lowering.precision, lowering.task_chunk, source.dtype)
        return (settings, Same(source.table), conditions(self._method, device))
