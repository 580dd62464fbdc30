"""Evaluation: learn every task of a stream of episodes, classify its queries, score.

Where a method allows it (``Method.embeds``) and it pays, each image of a split passes the network
once, not once an episode: episodes are then gathered from a table of features, which the method
gets in place of images. Scores are those of the direct way up to the rounding of other batch sizes.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from fewshot_bench.engine.executors import Eager, Executor, Prediction
from fewshot_bench.engine.executors.base import Call
from fewshot_bench.engine.executors.graph import AHEAD
from fewshot_bench.engine.memory import within_memory
from fewshot_bench.errors import PluginError, plugin_errors
from fewshot_bench.hooks.lifecycle import RunHooks
from fewshot_bench.method import accuracy, title_of
from fewshot_bench.nn import replica, uses_batch_statistics
from fewshot_bench.sampling.base import EpisodeSource, Indices
from fewshot_bench.utils.devices import is_gpu, on_stream
from fewshot_bench.utils.generators import generators_used, global_generators

Metric = Callable[[Tensor, Tensor], Tensor]
Sampled = Callable[[range, Indices], None]

METRIC = "metric "  # before the names of their columns
FEATURE_CHUNK = 128  # tasks per call where images are embedded already
UNKNOWN = (math.nan, math.nan)  # times to learn and to classify
TOLERANCE = 1e-2  # of the largest logit: other batch sizes round differently, bf16 coarsely


@dataclass(frozen=True)
class Scores:
    """What an evaluation of E episodes gives; float64 [E] where nothing else stands."""

    accuracy: np.ndarray  # fractions
    metrics: dict[str, np.ndarray]
    class_ids: np.ndarray  # int64 [E, way]
    confusion: np.ndarray  # int64 [E, way, way]; rows are true slots, columns predicted ones
    adapt_ms: np.ndarray  # to learn each task; NaN where the images were embedded beforehand
    predict_ms: np.ndarray  # to classify it; NaN as well


def evaluate(
    executor: Executor, source: EpisodeSource, episodes: int, *, chunk: int,
    metrics: Mapping[str, Metric] | None = None, tick: Callable[[int, float], None] | None = None,
    hooks: RunHooks | None = None,
) -> Scores:  # fmt: skip
    """Score the episodes 0..episodes-1 of a source, in the executor's ``running()`` block.

    Arguments:
        chunk: tasks per call; does not change a number.
        metrics: further scores, each (logits [T, Q, way], target [T, Q]) -> [T].
        tick: called with (episodes done, accuracy so far).
        hooks: with ``split`` and ``step`` bound, called between chunks; default: no observers.
    """
    hooks, method = hooks or RunHooks(), executor.method
    hooks.evaluation_started(episodes=episodes)
    was_training, done, correct = method.training, 0, 0.0
    method.eval()
    rows: list[dict[str, np.ndarray]] = []
    try:
        with on_stream(executor.stream(source.table.device)):
            chunks = predictions(executor, source, episodes, chunk, hooks.sampled)
            for indices, prediction in chunks:
                columns = scores_of(prediction, indices, metrics or {}, title_of(method))
                rows.append({name: values.cpu().numpy() for name, values in columns.items()})
                part = _scores(rows[-1])
                begin, done = done, done + len(indices.key)
                hooks.episodes_scored(
                    ids=range(begin, done), scores=part.accuracy, metrics=part.metrics,
                    confusion=part.confusion,
                )  # fmt: skip
                correct += float(part.accuracy.sum())
                if tick is not None:
                    tick(done, correct / done)
    finally:
        method.train(was_training)
    whole = _scores({name: np.concatenate([row[name] for row in rows]) for name in rows[0]})
    hooks.evaluation_finished(scores=whole.accuracy, metrics=whole.metrics)
    return whole


def _scores(columns: Mapping[str, np.ndarray]) -> Scores:
    metrics = {n.removeprefix(METRIC): v for n, v in columns.items() if n.startswith(METRIC)}
    return Scores(metrics=metrics, **{n: v for n, v in columns.items() if not n.startswith(METRIC)})


def predictions(
    executor: Executor, source: EpisodeSource, episodes: int, chunk: int,
    sampled: Sampled | None = None,
) -> Iterator[tuple[Indices, Prediction]]:  # fmt: skip
    """Predict the episodes, ``chunk`` at a time; ``sampled`` is called before each chunk.

    After the first, images are embedded once where it pays; else a CUDA graph is replayed, if any.
    """
    first = min(chunk, episodes)
    if first < episodes and embedding_pays(executor, source, episodes):
        yield from _embedded(executor, source, episodes, first, sampled)
        return
    graph = executor.chunk_graph(source, first)
    for indices in draw_chunks(source, range(episodes), first, sampled):
        prediction = None if graph is None else graph.predict(executor, indices)
        if prediction is None:
            prediction = within_memory(executor, source.deliver(indices), executor.predict)
            if graph is not None:
                graph.ran_directly(executor, len(indices.key))
        yield indices, prediction


def draw_chunks(
    source: EpisodeSource, ids: range, chunk: int, sampled: Sampled | None = None
) -> Iterator[Indices]:
    """Indices of these episodes, ``chunk`` at a time."""
    # On a GPU a sampler takes as long for the indices of one chunk as for those of many.
    together = max(1, AHEAD // chunk) * chunk if is_gpu(source.table.device) else chunk
    for start in range(0, len(ids), together):
        some = ids[start : start + together]
        indices = source.indices(some)
        for i in range(0, len(some), chunk):
            part = indices.tasks(i, i + chunk)
            if sampled is not None:
                sampled(some[i : i + chunk], part)
            yield part


def embedding_pays(executor: Executor, source: EpisodeSource, episodes: int) -> bool:
    """Whether the method allows it, and so many episodes hold more images than there are."""
    method, task = executor.method, source.sampler.task
    if not method.embeds or uses_batch_statistics(method):
        return False
    return episodes * task.way * (task.shot + task.query) > len(source.table.images)


def _embedded(
    executor: Executor, source: EpisodeSource, episodes: int, first: int, sampled: Sampled | None
) -> Iterator[tuple[Indices, Prediction]]:
    """Predict the episodes, with every image embedded once after a first chunk, which is direct.

    The times are those of that chunk. Given features, its logits may differ by rounding only.
    """
    [indices] = draw_chunks(source, range(first), first, sampled)
    prediction = within_memory(executor, source.deliver(indices), executor.predict)
    yield indices, prediction
    table, dtype = source.table, source.dtype
    features = executor.embed(lambda at: table.gather(at, dtype), len(table.images), table.device)

    def gather(at: Tensor, dtype: torch.dtype) -> Tensor:
        return features.index_select(0, at.flatten()).unflatten(0, at.shape)

    method = replica(executor.method)
    method.features_given = True
    executor = Eager(method, precision=executor.precision)
    source = copy.copy(source)
    source.table = SimpleNamespace(device=features.device, gather=gather)  # type: ignore[assignment]
    direct, again = prediction.logits, executor.predict(source.deliver(indices)).logits
    off = float((direct - again).abs().max())
    if not off <= TOLERANCE * float(direct.abs().max().clamp_min(1)):
        raise PluginError(
            f"{title_of(method)} declares embeds = True, but its predictions differ by {off:.3g} "
            "when every image is embedded once: adapt() or predict() sees images without "
            "embedded()."
        )
    for indices in draw_chunks(source, range(first, episodes), FEATURE_CHUNK, sampled):
        prediction = within_memory(executor, source.deliver(indices), executor.predict)
        tasks = len(indices.key)
        yield indices, Prediction(prediction.logits, [Call(tasks, tasks, lambda: UNKNOWN)])


def scores_of(
    prediction: Prediction, indices: Indices, metrics: Mapping[str, Metric], title: str
) -> dict[str, Tensor]:
    """The columns of :class:`Scores` for some episodes; metrics as ``metric NAME``.

    Raises PluginError if the logits of the method with this title are of a wrong shape.
    """
    logits, target = prediction.logits, indices.target
    expected = (*target.shape, indices.class_ids.shape[1])
    if logits.shape != expected:
        raise PluginError(
            f"{title}.predict(): expected logits [T, Q, way] of shape {expected}, got shape "
            f"{tuple(logits.shape)}."
        )
    return {
        "accuracy": accuracy(logits.double(), target),
        "class_ids": indices.class_ids,
        "confusion": confusion(logits, target),
        **{f"{METRIC}{n}": metric(logits, target).double() for n, metric in metrics.items()},
        # Last: to read the times waits for the device.
        "adapt_ms": prediction.adapt_ms.double(),
        "predict_ms": prediction.predict_ms.double(),
    }


def measured(title: str, metric: Metric, logits: Tensor, target: Tensor) -> Tensor:
    """Scores, float64 [T], of the metric with this title.

    PluginError if it raises, draws random numbers, or gives not one number per task.
    """
    before = global_generators()
    with plugin_errors(title):
        scores = torch.as_tensor(metric(logits, target))
    if found := generators_used(before, global_generators()):
        raise PluginError(
            f"{title} draws from {found[0]}: its scores would differ the next time; a metric is a "
            "function of logits and targets."
        )
    if scores.shape != logits.shape[:1]:
        raise PluginError(
            f"{title}: expected one number per task, shape ({len(logits)},), got shape "
            f"{tuple(scores.shape)}."
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
