"""What a run trains on, in numbers that its configuration alone does not give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fewshot_bench.runs.build import Data
from fewshot_bench.sampling.batches import BatchSource
from fewshot_bench.config.resolve import RunConfig
from fewshot_bench.engine.players import check_players
from fewshot_bench.method import Method
from fewshot_bench.results.traits import OF_TRAINING
from fewshot_bench.sampling.base import EpisodeSource
from fewshot_bench.sampling.few_labels import PartlyLabeledSampler


def training_summary(
    config: RunConfig,
    method: Method,
    train: EpisodeSource | BatchSource,
    data: Data,
    inputs: Sequence[Mapping[str, Any]],
) -> dict[str, Any] | None:
    """The record's ``training_summary``; None for a method without parameters.

    It describes the training also in the record of a run that is evaluated on other data, whose
    configuration names those. ``images_seen`` counts every showing of an image: steps of the plan
    x batches of a step (``turns``) x tasks of a batch x images of a task (support, query and
    unlabeled; of a mini-batch, its size); 0 where nothing is trained.
    """
    if not any(True for _ in method.parameters()):
        return None
    turns, splits = len(method.turns), data.splits
    settings = config.to_dict()
    images = images_per_task(train) if check_players(method) else 0
    return {
        "source": "batches" if isinstance(train, BatchSource) else "episodes",
        "settings": {name: settings[name] for name in OF_TRAINING},
        "dataset_digest": splits.digest,
        "train_digest": data.content.digest("train", "validation"),
        "init_digest": next((one["sha256"] for one in inputs if one["option"] == "init"), None),
        "classes": len(splits.train.counts),
        "images": int(sum(splits.train.counts)),
        "labeled_images": _labeled(train),
        "turns": turns,
        "images_per_task": images,
        "images_seen": config.steps * turns * config.task_batch * images,
    }


def images_per_task(source: EpisodeSource | BatchSource) -> int:
    """How many images a training task shows, a mini-batch being one task."""
    if isinstance(source, BatchSource):
        return source.size
    task = source.sampler.task
    return task.way * (task.shot + task.query) + task.classes * task.unlabeled


def _labeled(source: EpisodeSource | BatchSource) -> int:
    """How many different images of the training split have a label."""
    if isinstance(source, BatchSource):
        return len(source.table.images if source.labeled is None else source.labeled)
    sampler = source.sampler
    if isinstance(sampler, PartlyLabeledSampler):
        return int(sampler.labeled.sum())
    return int(sampler.table.class_count.sum())
