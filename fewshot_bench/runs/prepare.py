"""What a run needs before its first step: method, executor, sources of episodes, record."""

import logging
import os
import re
import shlex
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewshot_bench.config.options import dataset_options, flag
from fewshot_bench.config.schema import RunConfig
from fewshot_bench.data import overlap as overlaps
from fewshot_bench.data.overlap import NO_IMAGES, TRAINING, VALIDATION, SeenImages, unknown_images
from fewshot_bench.data.table import ClassTable
from fewshot_bench.engine.evaluation import Metric, measured
from fewshot_bench.engine.executors import Executor, choose
from fewshot_bench.engine.training import check_players
from fewshot_bench.engine.weights import load_weights
from fewshot_bench.episode import Task
from fewshot_bench.errors import ConfigError, DataError, FewshotBenchError
from fewshot_bench.hooks.lifecycle import RunHooks
from fewshot_bench.hooks.registry import CORE
from fewshot_bench.hooks.single_file import is_file
from fewshot_bench.method import Method
from fewshot_bench.results.record import RECORD, SCHEMA_VERSION, read_record
from fewshot_bench.results.record.build import task_counts
from fewshot_bench.results.record.code import code_digest, code_of
from fewshot_bench.results.record.environment import describe_device, environment
from fewshot_bench.results.record.model import Timing
from fewshot_bench.results.training import OF_TRAINING
from fewshot_bench.rng import key_of
from fewshot_bench.runs.build import build, build_backbone, build_method
from fewshot_bench.runs.context import RunContext
from fewshot_bench.sampling import few_labels
from fewshot_bench.sampling.base import EpisodeSource
from fewshot_bench.sampling.batches import BatchSource
from fewshot_bench.sampling.few_labels import Labels
from fewshot_bench.sampling.inspection import DrawnEpisodes, draw_episodes
from fewshot_bench.utils.generators import generators_seeded

logger = logging.getLogger(__name__)

# Words in the name of an option without a file that brings weights trained elsewhere.
PRETRAINED = ("weights", "pretrained")
UNKNOWN_YET = (
    "evaluated_from", "episodes_digest", "test", "validation", "training", "weights", "seen",
    "error",
)  # fmt: skip


@dataclass
class PreparedRun:
    """A run that is ready to be trained or evaluated."""

    context: RunContext
    hooks: RunHooks
    metrics: dict[str, Metric]
    method: Method
    executor: Executor
    train: EpisodeSource | BatchSource
    unlabeled: EpisodeSource | None  # for methods that learn from such tasks
    validation: EpisodeSource | None
    test: EpisodeSource
    seen: SeenImages  # that took part in making the weights
    overlap: dict[str, Any] | None
    drawn: DrawnEpisodes | None  # of the evaluation

    @property
    def config(self) -> RunConfig:
        return self.context.config


def prepare(
    context: RunContext, *, trains: bool = True, seen: SeenImages | None = None, part: str = "test"
) -> PreparedRun:
    """Read the data and build the method; DataError if classes to be tested made the weights.

    Arguments:
        trains: whether anything may be trained; else the training split stays on the host.
        seen: the images that took part in making the weights, where the run does not make them.
        part: the split that is evaluated: ``test`` or ``validation``.
    """
    config, registry = context.config, context.registry
    observers = [registry.resolve("observers", name) for name in config.observers]
    hooks, metrics = RunHooks({item.title: item.load() for item in observers}), _metrics(context)
    logger.info(f"reading {config.dataset}")
    splits = context.data.splits
    evaluated = getattr(splits, part)
    if evaluated is None:
        raise ConfigError(f"--part {part}: {config.dataset} has no {part} split.")
    test = episodes(context, part, evaluated=True)
    if (length := test.sampler.length) is not None:
        logger.info(f"the open plan has {length} episodes; no image is used twice")
    _ = context.inputs  # with the digests of before anything is built from them
    method = new_method(context, method_task(context))
    method.check_task(context.eval_task)
    if trains:
        seen = seen_by(context, trains=bool(method.players()))
    overlap, drawn = None, None
    if seen is not None:
        overlaps.check_shape(splits.test.image_shape, seen, config.dataset)
        # The validation split may have chosen the weights, whoever evaluates it.
        parts = (TRAINING, VALIDATION) if part == "test" else (TRAINING,)
        overlap = overlaps.find_overlap(evaluated, seen, part, parts=parts)
        if overlap["classes"] and not config.allow_overlap:
            what = f"{overlaps.overlap_summary(overlap)}. The result would not be for new classes"
            marks = "--allow-overlap, which marks the result wherever it is shown"
            raise DataError(f"{what}. Use another split or other data, or {marks}.")
        count = min(config.episodes, length or config.episodes)
        drawn = draw_episodes(test, count, registry.resolve("samplers", config.sampling).title)
    train: EpisodeSource | BatchSource = test
    unlabeled, validation = None, None
    if trains:
        train, unlabeled = _training(context, method.source, method.unlabeled_tasks)
        validation = episodes(context, "validation") if splits.validation is not None else None
    executor, seen = choose_executor(context, method, context.device), seen or NO_IMAGES
    sources = train, unlabeled, validation, test
    return PreparedRun(context, hooks, metrics, method, executor, *sources, seen, overlap, drawn)


def _metrics(context: RunContext) -> dict[str, Metric]:
    """The metrics by name, each tried on made-up logits: after the training would be too late."""
    config = context.config
    items = {name: context.registry.resolve("metrics", name) for name in config.metrics}
    metrics = {name: partial(measured, item.title, item.load()) for name, item in items.items()}
    queries = config.way * config.query
    logits = torch.linspace(-1, 1, 2 * queries * config.way).reshape(2, queries, config.way)
    target = torch.arange(queries).remainder(config.way).expand(2, -1)
    for metric in metrics.values():
        metric(logits, target)
    return dict(metrics)


def choose_executor(context: RunContext, method: Method, device: torch.device) -> Executor:
    config = context.config
    # Anomaly mode is a thread's own.
    engine, chunk = "eager" if config.detect_anomaly else config.engine, config.task_chunk
    return choose(engine, method, device, precision=config.precision, task_chunk=chunk)


def method_task(context: RunContext) -> Task:
    """The task that the method is built for: with the shape and pixel range of the data."""
    splits, pixels = context.data.splits, context.pixel_range
    task = replace(context.train_task, image_shape=splits.test.image_shape, pixel_range=pixels)
    batches = context.method_class.source == "batches"
    return replace(task, way=len(splits.train.counts)) if batches else task


def new_method(context: RunContext, task: Task, device: torch.device | None = None) -> Method:
    """The method on its device, initialized by ``config.seed`` alone (or from ``config.init``).

    The backbone has a random stream of its own, so that every method starts from the same one.
    Raises ConfigError or RecordError if the weights of ``--init`` do not fit, or were changed.
    """
    config, registry = context.config, context.registry
    backbone: nn.Module | None = None
    if context.method_class.wants_backbone:
        own = config.backbone, config.backbone_options
        with generators_seeded("backbone", config.seed):
            backbone = build_backbone(registry, *own, task.image_shape)
    with generators_seeded("method", config.seed):
        method = build_method(registry, config.method, config.method_options, task, backbone)
    if config.init:
        folder = Path(config.init)
        record = read_record(folder) if (folder / RECORD).is_file() else None
        load_weights(method, folder, record)
    return method.to(context.device if device is None else device)


def episodes(context: RunContext, split: str, *, evaluated: bool = False) -> EpisodeSource:
    """The stream of episodes of a split (``train``, ``validation`` or ``test``).

    Validation is closed during training; the configured sampling is that of the evaluated split.
    """
    if split == "train":
        train = _training(context, "episodes")[0]
        assert isinstance(train, EpisodeSource)
        return train
    config, images = context.config, getattr(context.data.splits, split)
    name = config.sampling if evaluated or split == "test" else f"{CORE}:closed"
    table, task = ClassTable(images, context.device, context.pixel_range), context.eval_task
    try:
        table.require(task.classes, task.images_per_class, f"{split} split")
    except ConfigError as error:
        if split != "validation" or evaluated or not (typed := _without_validation(context)):
            raise
        raise ConfigError(f"{error} To do without validation: {typed}.") from error
    own = config.sampling_options if name == config.sampling else {}
    options = {"within_family": config.within_family, **own}
    sampling = (table, task, key_of(split, config.episode_seed))
    made = build(context.registry, "samplers", name, options, *sampling, prefix="sampling_")
    return EpisodeSource(made)


def _without_validation(context: RunContext) -> str | None:
    """The option, as typed, with which the data set has no validation classes; None: there is none.

    It is tried: beside a split file, say, it may change nothing.
    """
    config = context.config
    for option in dataset_options(context.registry, config.dataset):
        if not option.name.startswith("validation"):
            continue
        nothing = "none" if "none" in option.choices else 0
        options = {**config.dataset_options, option.name: nothing}
        with suppress(FewshotBenchError):
            option.check(nothing)
            other = context.with_config(replace(config, dataset_options=options))
            if other.load_data(download=False).splits.validation is None:
                return f"{option.flag} {nothing}"
    return None


def _training(
    context: RunContext, source: str, unlabeled: bool = False
) -> tuple[EpisodeSource | BatchSource, EpisodeSource | None]:
    """Labeled training tasks and, where some classes have no labels, unlabeled ones if wanted.

    They are always closed: a finite plan could end before the training does. Mini-batches have as
    many images as an episode has queries.
    """
    config, task, seed = context.config, context.train_task, key_of("train", context.config.seed)
    table = ClassTable(context.data.splits.train, context.device, context.pixel_range)
    labels = Labels(config.labeled_fraction, config.labeled_classes, config.labeled_seed)
    if source == "batches":
        every = labels.fraction == labels.classes == 1
        labeled = None if every else few_labels.labeled_images(table, labels)
        return BatchSource(table, task.way * task.query, seed, labeled=labeled), None
    table.require(task.classes, task.images_per_class, "train split", "--train-")
    how = {"unlabeled": unlabeled, "within_family": config.within_family}
    return few_labels.training_sources(table, task, seed, labels, **how)


def seen_by(context: RunContext, *, trains: bool) -> SeenImages:
    """What takes part in a run: its splits (the first if it trains) and what its init saw."""
    splits, config = context.data.splits, context.config
    seen = overlaps.seen_images(splits.train, TRAINING) if trains else NO_IMAGES
    if splits.validation is not None:
        seen += overlaps.seen_images(splits.validation, VALIDATION)
    if seen.image_shape is None:
        seen = replace(seen, image_shape=splits.test.image_shape)
    if config.init:
        seen += _seen_by_init(Path(config.init))
    # Any file can hold weights, whatever its option is called; a name of weights shows in that.
    for name, value in {**config.method_options, **config.backbone_options}.items():
        if name in context.input_files:
            made = f"took part in making the file of {flag(name)}"
        elif value and isinstance(value, bool | str) and any(word in name for word in PRETRAINED):
            made = f"trained the weights of {flag(name)}"
        else:
            continue
        seen += unknown_images(f"which classes {made} is not known")
    return seen


def _seen_by_init(folder: Path) -> SeenImages:
    folder = folder if folder.is_dir() else folder.parent
    if (folder / RECORD).is_file():
        return overlaps.read_seen(folder, read_record(folder))
    weights = f"the weights of --init {folder}"
    if not (folder / overlaps.SEEN_FILE).is_file():
        return unknown_images(f"which classes trained {weights} is not known")
    what = f"whether the list of classes that trained {weights} is theirs is not known"
    return overlaps.read_seen(folder, None) + unknown_images(f"{what}: there is no record")


def describe(run: PreparedRun, folder: Path) -> dict[str, Any]:
    """The record as it stands before anything was trained."""
    context, config, data = run.context, run.config, run.context.data
    method, sampler = context.plugins[0], None
    if run.drawn is not None:
        item = context.registry.resolve("samplers", config.sampling)
        options = config.sampling_options.items()
        sampler = {
            **{name: item.identity[name] for name in ("name", "distribution", "version")},
            "options": {n.removeprefix("sampling_"): v for n, v in options},
            "code": code_of(item.source).sha256,
            "sampling": run.test.sampler.sampling,
            **run.drawn.counts(),
        }
    return {
        "schema_version": SCHEMA_VERSION,
        "status": "running",
        "id": folder.name,
        "command": shlex.join(sys.argv),
        "method": method.name,
        "dataset": config.dataset,
        "dataset_digest": data.splits.digest,
        "evaluated_digest": data.content.digest("test"),
        "dataset_license": data.splits.license,
        "dataset_source": data.splits.source,
        "split": getattr(data.dataset, "split", data.dataset.splits[0]),
        "train_task": task_counts(context.train_task),
        "task": task_counts(context.eval_task),
        "seed": config.seed,
        "episode_seed": config.episode_seed,
        "preset": config.preset,
        "config": config.to_dict(),
        "parameters": sum(p.numel() for p in run.method.parameters()),
        "plugin": {"distribution": method.distribution, "version": method.version},
        "plugins": [plugin.identity for plugin in context.plugins],
        "environment": {**environment(), "code": code_digest(context.sources)},
        "device": describe_device(context.device),
        "part": "test",
        "sampler": sampler,
        "overlap": run.overlap,
        "training_summary": training_summary(run),
        "timing": Timing().to_dict(),
        "notes": [
            *data.splits.notes,
            *(config.notes if run.method.players() else ()),
            *(overlaps.overlap_notes(run.overlap) if run.overlap else ()),
        ],
        "inputs": [dict(entry) for entry in context.inputs],
        **dict.fromkeys(UNKNOWN_YET),
    }


def training_summary(run: PreparedRun) -> dict[str, Any] | None:
    """The record's ``training_summary``; None for a method without parameters.

    ``images_seen`` counts every showing of an image: steps x batches of a step (``turns``) x tasks
    of a batch x images of a task (support, query and unlabeled; of a mini-batch, its size).
    """
    method, config, data = run.method, run.config, run.context.data
    if not any(True for _ in method.parameters()):
        return None
    turns, splits, inputs = len(method.turns), data.splits, run.context.inputs
    settings, source = config.to_dict(), run.train
    if isinstance(source, BatchSource):
        labels = source.table.images if source.labeled is None else source.labeled
        shown, labeled = source.size, len(labels)
    else:
        sampler, task = source.sampler, source.sampler.task
        shown = task.way * (task.shot + task.query) + task.classes * task.unlabeled
        labeled = int(sampler.table.class_count.sum())
        if isinstance(sampler, few_labels.PartlyLabeledSampler):
            labeled = int(sampler.labeled.sum())
    images = shown if check_players(method) else 0
    return {
        "source": "batches" if isinstance(source, BatchSource) else "episodes",
        "settings": {name: settings[name] for name in OF_TRAINING},
        "dataset_digest": splits.digest,
        "train_digest": data.content.digest("train", "validation"),
        "init_digest": next((one["sha256"] for one in inputs if one["option"] == "init"), None),
        "classes": len(splits.train.counts),
        "images": int(sum(splits.train.counts)),
        "labeled_images": labeled,
        "turns": turns,
        "images_per_task": images,
        "images_seen": config.steps * turns * config.task_batch * images,
    }


def stem(config: RunConfig) -> str:
    """The readable part of a run's name; nothing in it can leave the runs folder."""
    method = Path(config.method).name if is_file(config.method) else config.method
    name = f"{method}-{config.dataset}-{config.way}w{config.shot}s"
    return re.sub(r"[^A-Za-z0-9]+", "-", name)[:60].strip("-").lower()


def check_writable(folder: Path) -> None:
    """Raise ConfigError now if runs cannot be written there, not after the training."""
    at = folder
    while not at.exists() and at != at.parent:
        at = at.parent
    if not at.is_dir() or not os.access(at, os.W_OK):
        raise ConfigError(f"--runs-dir: expected a writable folder, cannot write to '{folder}'.")
