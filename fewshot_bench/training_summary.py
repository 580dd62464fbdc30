"""What a run trains on, in numbers that its configuration alone does not give."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot_bench.batches import BatchSource
from fewshot_bench.engine.players import check_players
from fewshot_bench.engine.weights import FILE
from fewshot_bench.results.traits import OF_TRAINING
from fewshot_bench.sampling import EpisodeSource
from fewshot_bench.semisupervised import PartlyLabelledSampler

if TYPE_CHECKING:
    from fewshot_bench.parts import Parts


def training_summary(parts: Parts) -> dict[str, Any] | None:
    """The record's ``training_summary``; None for a method without parameters.

    It describes the training also in the record of a run that is evaluated on other data, whose
    configuration names those. ``images_seen`` counts every showing of an image: steps of the plan
    x batches of a step (``turns``) x tasks of a batch x images of a task (support, query and
    unlabeled; of a mini-batch, its size); 0 where nothing is trained.
    """
    if not any(True for _ in parts.method.parameters()):
        return None
    config, train, turns = parts.config, parts.train, len(parts.method.turns)
    settings = config.to_dict()
    images = images_per_task(train) if check_players(parts.method) else 0
    return {
        "source": "batches" if isinstance(train, BatchSource) else "episodes",
        "settings": {name: settings[name] for name in OF_TRAINING},
        "dataset_digest": parts.data.splits.digest,
        "init_digest": None if config.init is None else _digest(Path(config.init) / FILE),
        "classes": len(parts.data.splits.train.counts),
        "images": int(sum(parts.data.splits.train.counts)),
        "labeled_images": _labeled(train),
        "turns": turns,
        "images_per_task": images,
        "images_seen": config.steps * turns * config.task_batch * images,
    }


def _digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def images_per_task(source: EpisodeSource | BatchSource) -> int:
    """How many images a training task shows, a mini-batch being one task."""
    if isinstance(source, BatchSource):
        return source.size
    task = source.sampler.task
    return task.way * (task.shot + task.query) + task.classes * task.unlabelled


def _labeled(source: EpisodeSource | BatchSource) -> int:
    """How many different images of the training split have a label."""
    if isinstance(source, BatchSource):
        return len(source.table.images if source.labelled is None else source.labelled)
    sampler = source.sampler
    if isinstance(sampler, PartlyLabelledSampler):
        return int(sampler.labelled.sum())
    return int(sampler.table.class_count.sum())
