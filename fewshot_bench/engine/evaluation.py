"""Evaluation: learn every task of a stream of episodes, classify its queries, score."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fewshot_bench.engine.embedding import check_same, embed_once, pays
from fewshot_bench.engine.executors.eager import Eager
from fewshot_bench.engine.executors.evaluation_graph import ChunkGraph
from fewshot_bench.engine.executors.graph import AHEAD, stream_for
from fewshot_bench.engine.memory import within_memory
from fewshot_bench.engine.prediction import Call, Prediction
from fewshot_bench.errors import PluginError, plugin_errors
from fewshot_bench.hooks.lifecycle import RunHooks
from fewshot_bench.method import accuracy, title_of
from fewshot_bench.sampling.base import EpisodeSource, Indices
from fewshot_bench.utils.devices import is_gpu, on_stream
from fewshot_bench.utils.generators import generators_used, global_generators

Metric = Callable[[Tensor, Tensor], Tensor]
Tick = Callable[[int, float], None]
Sampled = Callable[[range, Indices], None]

METRIC = "metric "  # before the names of their columns
FEATURE_CHUNK = 128  # tasks per call where images are embedded already
UNKNOWN = (math.nan, math.nan)  # times to learn and to classify


@dataclass(frozen=True)
class Scores:
    """What an evaluation of E episodes gives.

    Arguments:
        accuracy: float64 [E], fractions.
        metrics: {name: float64 [E]}.
        class_ids: int64 [E, way].
        confusion: int64 [E, way, way]; rows are true slots, columns predicted ones.
        adapt_ms, predict_ms: float64 [E], time to learn and to classify each task; NaN where
            the images were embedded beforehand.
    """

    accuracy: np.ndarray
    metrics: dict[str, np.ndarray]
    class_ids: np.ndarray
    confusion: np.ndarray
    adapt_ms: np.ndarray
    predict_ms: np.ndarray


def evaluate(
    lowering: Eager,
    source: EpisodeSource,
    episodes: int,
    *,
    chunk: int,
    metrics: Mapping[str, Metric] | None = None,
    tick: Tick | None = None,
    hooks: RunHooks | None = None,
) -> Scores:
    """Score the episodes 0..episodes-1 of a source.

    Arguments:
        lowering: runs the method; to be used inside its ``running()`` block.
        chunk: tasks per call; does not change a number.
        metrics: further scores, each (logits [T, Q, way], target [T, Q]) -> [T].
        tick: called with (episodes done, accuracy so far).
        hooks: with ``split`` and ``step`` bound, called between chunks; default: no observers.
    """
    hooks = hooks or RunHooks()
    hooks.evaluation_started(episodes=episodes)
    method = lowering.method
    was_training = method.training
    method.eval()
    parts: dict[str, list[np.ndarray]] = {}
    done, correct = 0, 0.0
    try:
        with on_stream(stream_for(lowering, source.table.device)):
            chunks = predictions(lowering, source, episodes, chunk, hooks.sampled)
            for indices, prediction in chunks:
                columns = scores_of(prediction, indices, metrics or {}, title_of(method))
                row = {name: values.cpu().numpy() for name, values in columns.items()}
                for name, values in row.items():
                    parts.setdefault(name, []).append(values)
                ids = range(done, done + len(indices.key))
                hooks.episodes_scored(
                    ids=ids,
                    scores=row["accuracy"],
                    metrics=_metrics_of(row),
                    confusion=row["confusion"],
                )
                done = ids.stop
                correct += float(row["accuracy"].sum())
                if tick is not None:
                    tick(done, correct / done)
    finally:
        method.train(was_training)
    whole = {name: np.concatenate(values) for name, values in parts.items()}
    own = _metrics_of(whole)
    hooks.evaluation_finished(scores=whole["accuracy"], metrics=own)
    return Scores(metrics=own, **{n: v for n, v in whole.items() if not n.startswith(METRIC)})


def _metrics_of(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {n.removeprefix(METRIC): v for n, v in columns.items() if n.startswith(METRIC)}


def predictions(
    lowering: Eager,
    source: EpisodeSource,
    episodes: int,
    chunk: int,
    sampled: Sampled = lambda ids, indices: None,
) -> Iterator[tuple[Indices, Prediction]]:
    """Predict the episodes, ``chunk`` at a time; ``sampled`` is called before each chunk.

    Where it pays, every image is embedded once; else chunks are replays of a CUDA graph where the
    lowering has such. The first chunk is run the direct way all the same.
    """
    first = min(chunk, episodes)
    if first < episodes and pays(lowering, source, episodes):
        yield from _embedded(lowering, source, episodes, first, sampled)
        return
    graph = ChunkGraph.of(lowering, source, first)
    for indices in drawn(source, range(episodes), first, sampled):
        prediction = None if graph is None else graph.predict(lowering, indices)
        if prediction is None:
            prediction = within_memory(lowering, source.deliver(indices), lowering.predict)
            if graph is not None:
                graph.ran_directly(lowering, len(indices.key))
        yield indices, prediction


def _embedded(
    lowering: Eager, source: EpisodeSource, episodes: int, first: int, sampled: Sampled
) -> Iterator[tuple[Indices, Prediction]]:
    """Predict the episodes, with every image embedded once.

    The times of the first chunk, which is run directly, are those of learning and classifying a
    task, and its logits check the rest.
    """
    [indices] = drawn(source, range(first), first, sampled)
    prediction = within_memory(lowering, source.deliver(indices), lowering.predict)
    yield indices, prediction
    direct = prediction.logits
    lowering, source = embed_once(lowering, source)
    again = lowering.predict(source.deliver(indices)).logits
    check_same(direct, again, title_of(lowering.method))
    for indices in drawn(source, range(first, episodes), FEATURE_CHUNK, sampled):
        prediction = within_memory(lowering, source.deliver(indices), lowering.predict)
        tasks = len(indices.key)
        yield indices, Prediction(prediction.logits, [Call(tasks, tasks, lambda: UNKNOWN)])


def drawn(source: EpisodeSource, ids: range, chunk: int, sampled: Sampled) -> Iterator[Indices]:
    """Indices of these episodes, ``chunk`` at a time.

    On a GPU the hundreds of small operations of a sampler take as long for one chunk as for many,
    whose indices are therefore drawn together.
    """
    together = max(1, AHEAD // chunk) * chunk if is_gpu(source.table.device) else chunk
    for start in range(0, len(ids), together):
        some = ids[start : start + together]
        indices = source.indices(some)
        for i in range(0, len(some), chunk):
            part = indices.tasks(i, i + chunk)
            sampled(some[i : i + chunk], part)
            yield part


def scores_of(
    prediction: Prediction, indices: Indices, metrics: Mapping[str, Metric], title: str
) -> dict[str, Tensor]:
    """The columns of :class:`Scores` for some episodes.

    Arguments:
        prediction: of them.
        indices: theirs, which say what is right.
        metrics: further scores.
        title: how a message names the method.

    Raises:
        PluginError: the logits are of a wrong shape.
    """
    logits, target = prediction.logits, indices.target
    expected = (*target.shape, indices.class_ids.shape[1])
    if logits.shape != expected:
        raise PluginError(
            f"{title}.predict() gave logits of shape {tuple(logits.shape)}; [T, Q, way] is "
            f"{expected}."
        )
    row = {
        "accuracy": accuracy(logits.double(), target),
        "class_ids": indices.class_ids,
        "confusion": confusion(logits, target),
    }
    for name, metric in metrics.items():
        row[f"{METRIC}{name}"] = metric(logits, target).double()
    # Last: to read the times waits for the device.
    row["adapt_ms"] = prediction.adapt_ms.double()
    row["predict_ms"] = prediction.predict_ms.double()
    return row


def measured(title: str, metric: Metric, logits: Tensor, target: Tensor) -> Tensor:
    """A metric's scores, float64 [T].

    Arguments:
        title: how a message names the metric.

    Raises:
        PluginError: it raises, or gives something else than one number per task.
    """
    before = global_generators()
    with plugin_errors(title):
        scores = torch.as_tensor(metric(logits, target))
    if found := generators_used(before, global_generators()):
        raise PluginError(
            f"{title} draws from {found[0]}: its scores would be others the next time; a metric "
            "is a function of logits and targets."
        )
    if scores.shape != logits.shape[:1]:
        raise PluginError(
            f"{title} gave shape {tuple(scores.shape)}; it has to be one number per task, "
            f"({len(logits)},)."
        )
    return scores.double()


def higher_is_better(metric: Metric) -> bool:
    """Whether a higher score is a better one: the metric's attribute of this name, else True."""
    metric = metric.args[-1] if isinstance(metric, partial) else metric  # of :func:`measured`
    return bool(getattr(metric, "higher_is_better", True))


def confusion(logits: Tensor, target: Tensor) -> Tensor:
    """Counts [T, way, way] of (true slot, predicted slot)."""
    tasks, _, way = logits.shape
    cell = target * way + logits.argmax(-1)
    counts = torch.zeros(tasks, way * way, dtype=torch.int64, device=target.device)
    counts.scatter_add_(1, cell, torch.ones_like(cell))
    return counts.unflatten(1, (way, way))
