"""Evaluation: learn every task of a stream of episodes, classify its queries, score."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fewshot_bench.engine.embedding import check_same, embed_once, pays
from fewshot_bench.engine.lowering import Eager, Prediction
from fewshot_bench.engine.memory import within_memory
from fewshot_bench.episode import Episode
from fewshot_bench.errors import PluginError, blame
from fewshot_bench.method import accuracy, title_of
from fewshot_bench.random import global_generators, moved
from fewshot_bench.sampling import EpisodeSource

Metric = Callable[[Tensor, Tensor], Tensor]
Tick = Callable[[int, float], None]

FEATURE_CHUNK = 128  # tasks per call where images are embedded already


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
) -> Scores:
    """Score the episodes 0..episodes-1 of a source.

    Arguments:
        lowering: runs the method; to be used inside its ``running()`` block.
        chunk: tasks per call; does not change a number.
        metrics: further scores, each (logits [T, Q, way], target [T, Q]) -> [T].
        tick: called with (episodes done, accuracy so far).
    """
    method = lowering.method
    was_training = method.training
    method.eval()
    parts: dict[str, list[np.ndarray]] = {}
    done, correct = 0, 0.0
    try:
        for episode, prediction in predictions(lowering, source, episodes, chunk):
            row = scores_of(prediction, episode, metrics or {}, title_of(method))
            for name, value in row.items():
                parts.setdefault(name, []).append(value.cpu().numpy())
            done += len(episode)
            correct += float(parts["accuracy"][-1].sum())
            if tick is not None:
                tick(done, correct / done)
    finally:
        method.train(was_training)
    whole = {name: np.concatenate(values) for name, values in parts.items()}
    scores = {
        n.removeprefix("metric "): whole.pop(n) for n in list(whole) if n.startswith("metric ")
    }
    return Scores(metrics=scores, **whole)


def predictions(
    lowering: Eager, source: EpisodeSource, episodes: int, chunk: int
) -> Iterator[tuple[Episode, Prediction]]:
    """Predict the episodes, ``chunk`` at a time.

    Where it pays, every image is embedded once. The first chunk is run the direct way all the
    same: its times are those of learning and classifying a task, and its logits check the rest.
    """
    first = min(chunk, episodes)
    episode = source.batch(range(first))
    prediction = within_memory(lowering, episode, lowering.predict)
    yield episode, prediction
    embedded = first < episodes and pays(lowering, source, episodes)
    if embedded:
        direct = prediction.logits
        lowering, source = embed_once(lowering, source)
        again = lowering.predict(source.batch(range(first))).logits
        check_same(direct, again, title_of(lowering.method))
        chunk = FEATURE_CHUNK
    for start in range(first, episodes, chunk):
        episode = source.batch(range(start, min(start + chunk, episodes)))
        prediction = within_memory(lowering, episode, lowering.predict)
        if embedded:
            unknown = torch.full((len(episode),), torch.nan)
            prediction = Prediction(prediction.logits, unknown, unknown)
        yield episode, prediction


def scores_of(
    prediction: Prediction, episode: Episode, metrics: Mapping[str, Metric], title: str
) -> dict[str, Tensor]:
    """The columns of :class:`Scores` for some episodes.

    Arguments:
        title: how a message names the method.

    Raises:
        PluginError: the logits are of a wrong shape.
    """
    logits, target = prediction.logits, episode.target
    assert target is not None
    expected = (*target.shape, episode.class_ids.shape[1])
    if logits.shape != expected:
        raise PluginError(
            f"{title}.predict() gave logits of shape {tuple(logits.shape)}; [T, Q, way] is "
            f"{expected}."
        )
    row = {
        "accuracy": accuracy(logits.double(), target),
        "class_ids": episode.class_ids,
        "confusion": confusion(logits, target),
        "adapt_ms": prediction.adapt_ms.double(),
        "predict_ms": prediction.predict_ms.double(),
    }
    for name, metric in metrics.items():
        row[f"metric {name}"] = metric(logits, target).double()
    return row


def measured(title: str, metric: Metric, logits: Tensor, target: Tensor) -> Tensor:
    """A metric's scores, float64 [T].

    Arguments:
        title: how a message names the metric.

    Raises:
        PluginError: it raises, or gives something else than one number per task.
    """
    before = global_generators()
    with blame(title):
        scores = torch.as_tensor(metric(logits, target))
    if found := moved(before, global_generators()):
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


def confusion(logits: Tensor, target: Tensor) -> Tensor:
    """Counts [T, way, way] of (true slot, predicted slot)."""
    tasks, _, way = logits.shape
    cell = target * way + logits.argmax(-1)
    counts = torch.zeros(tasks, way * way, dtype=torch.int64, device=target.device)
    counts.scatter_add_(1, cell, torch.ones_like(cell))
    return counts.unflatten(1, (way, way))
