"""From a configuration to the things that a run needs: device, data, episodes, method."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from fewshot_bench.sampling.batches import BatchSource
from fewshot_bench.runs.objects import build_backbone, build_dataset, build_method, build_sampler
from fewshot_bench.config.resolve import RunConfig
from fewshot_bench.data.cache import cache_folder, cache_root
from fewshot_bench.data.content import SplitsContent, content_of_splits
from fewshot_bench.data.images import Dataset, LabeledImages, Splits
from fewshot_bench.data.locate import locate
from fewshot_bench.data.table import ClassTable
from fewshot_bench.engine.weights import load_weights
from fewshot_bench.episode import Task
from fewshot_bench.errors import ConfigError, FewshotBenchError, PluginError, blame
from fewshot_bench.hooks.registry import CORE, Registered, Registry
from fewshot_bench.method import Method
from fewshot_bench.config.options import (
    dataset_options,
    method_options,
    split_dataset,
)
from fewshot_bench.rng import generators_seeded, key_of
from fewshot_bench.results.record.code import code_of
from fewshot_bench.results.record.io import FILE as RECORD
from fewshot_bench.results.record.io import read_record
from fewshot_bench.sampling.base import EpisodeSource
from fewshot_bench.sampling.few_labels import Labels, labeled_images, training_sources

PIXEL_RANGES = {"unit": (0.0, 1.0), "signed": (-1.0, 1.0)}


@dataclass
class Data:
    """The splits, and which files and plugin they came from."""

    splits: Splits
    dataset: Dataset
    registered: Registered
    root: Path | None = None  # the folder that was found for it

    @cached_property
    def content(self) -> SplitsContent:
        """Every class, with digests; reads all pixels."""
        return content_of_splits(self.splits)


def load_data(config: RunConfig, registry: Registry, *, download: bool = True) -> Data:
    """Find, check and read the configured data set; ``download``: fetch it if it is not here."""
    name, _ = split_dataset(registry, config.dataset)
    registered = registry.resolve("datasets", name)
    dataset = build_dataset(registry, config.dataset, config.dataset_options)
    root = None
    if dataset.needs_files:
        root = locate(
            registered.name,
            config.data_root,
            registry.locate_dataset,
            dataset.download if download else None,
            config.cache_dir,
        )
    cache = cache_folder(
        cache_root(config.cache_dir) / registered.name, code_of(registered.source).sha256, root
    )
    with blame(f"{registered.title}: load()"):
        splits = dataset.load(root, cache)
    if not isinstance(splits, Splits):
        raise PluginError(
            f"{registered.title}: load() returned {type(splits).__name__}; fewshot_bench.Splits "
            "are wanted."
        )
    return Data(splits, dataset, registered, root)


def train_task(config: RunConfig) -> Task:
    """The shape of a training episode."""
    return Task(
        config.train_way,
        config.train_shot,
        config.train_query,
        config.train_unlabeled,
        config.train_distractors,
    )


def eval_task(config: RunConfig) -> Task:
    """The shape of a validation or test episode."""
    return Task(config.way, config.shot, config.query, config.unlabeled, config.distractors)


def episodes(
    images: LabeledImages,
    config: RunConfig,
    registry: Registry,
    split: str,
    device: torch.device,
    *,
    asked: bool = False,
) -> EpisodeSource:
    """The stream of episodes of one split (``train``, ``validation`` or ``test``).

    Validation is always closed on the way of a training; the sampling that was asked for is that
    of the split which ``fsb run`` or ``fsb eval`` is asked about.
    """
    if split == "train":
        return training_episodes(images, config, device, unlabeled=False)[0]
    name = config.sampling if asked or split == "test" else f"{CORE}:closed"
    table = ClassTable(images, device, PIXEL_RANGES[config.pixels])
    task = eval_task(config)
    try:
        table.require(task.classes, task.images_per_class, f"{split} split")
    except ConfigError as error:
        if split != "validation" or asked or not (typed := _without_validation(config, registry)):
            raise
        raise ConfigError(f"{error} To do without validation: {typed}.") from error
    seed = key_of(split, config.episode_seed)
    options = config.sampling_options if name == config.sampling else {}
    sampler = build_sampler(
        registry, name, options, table, task, seed, within_family=config.within_family
    )
    return EpisodeSource(sampler)


def _without_validation(config: RunConfig, registry: Registry) -> str | None:
    """The option, as typed, with which the data set has no validation classes; None: there is none.

    It is one whose name begins with ``validation``, a share or a number of classes, or a choice of
    which one is ``none``. It is tried: beside a split file, say, it may change nothing.
    """
    for option in dataset_options(registry, config.dataset):
        if not option.name.startswith("validation"):
            continue
        nothing = "none" if "none" in option.choices else 0
        options = {**config.dataset_options, option.name: nothing}
        with suppress(FewshotBenchError):
            option.check(nothing)
            other = load_data(replace(config, dataset_options=options), registry, download=False)
            if other.splits.validation is None:
                return f"{option.flag} {nothing}"
    return None


def labels(config: RunConfig) -> Labels:
    """Which part of the training split is labeled."""
    return Labels(config.labeled_fraction, config.labeled_classes, config.labeled_seed)


def training_episodes(
    images: LabeledImages, config: RunConfig, device: torch.device, *, unlabeled: bool
) -> tuple[EpisodeSource, EpisodeSource | None]:
    """Labeled training tasks and, where some classes have no labels, unlabeled ones if wanted.

    They are always closed: a finite plan could end before the training does.
    """
    table, task = ClassTable(images, device, PIXEL_RANGES[config.pixels]), train_task(config)
    table.require(task.classes, task.images_per_class, "train split", "--train-")
    seed = key_of("train", config.seed)
    return training_sources(
        table, task, seed, labels(config), unlabeled=unlabeled, within_family=config.within_family
    )


def batches(images: LabeledImages, config: RunConfig, device: torch.device) -> BatchSource:
    """Mini-batches of the training split, of as many images as an episode has queries."""
    table, wanted = ClassTable(images, device, PIXEL_RANGES[config.pixels]), labels(config)
    labeled = None if wanted.fraction == wanted.classes == 1 else labeled_images(table, wanted)
    return BatchSource(
        table,
        config.train_way * config.train_query,
        key_of("train", config.seed),
        labeled=labeled,
    )


def build(config: RunConfig, registry: Registry, source_task: Task, device: torch.device) -> Method:
    """The method on its device, initialized by ``config.seed`` alone (or from ``config.init``).

    The backbone has a stream of its own, so that every method starts from the same one.
    """
    method_class: type[Method] = registry.resolve("methods", config.method).load()
    backbone: nn.Module | None = None
    if method_class.wants_backbone:
        with generators_seeded("backbone", config.seed):
            backbone = build_backbone(
                registry, config.backbone, config.backbone_options, source_task.image_shape
            )
    with generators_seeded("method", config.seed):
        method = build_method(registry, config.method, config.method_options, source_task, backbone)
    if config.init:
        start_from(method, Path(config.init))
    return method.to(device)


def start_from(method: Method, folder: Path) -> None:
    """Put the weights of ``--init`` into a method.

    Raises:
        ConfigError: they do not fit it.
        RecordError: there are none, or they are not those that the run there wrote.
    """
    load_weights(method, folder, read_record(folder) if (folder / RECORD).is_file() else None)


def shaped(task: Task, images: LabeledImages, config: RunConfig) -> Task:
    """The task with the image shape and pixel range of the data."""
    return replace(task, image_shape=images.image_shape, pixel_range=PIXEL_RANGES[config.pixels])


def named_things(config: RunConfig, registry: Registry, with_backbone: bool) -> list[Registered]:
    """Every plugin object that the configuration names; the method first."""
    named = [
        ("methods", config.method),
        ("datasets", split_dataset(registry, config.dataset)[0]),
        ("samplers", config.sampling),
    ]
    named += [("backbones", config.backbone)] if with_backbone and config.backbone else []
    inner = method_options(registry, config.method, config.method_options)
    named += [("methods", config.method_options[option.name]) for option in inner if option.method]
    named += [("metrics", name) for name in config.metrics]
    named += [("observers", name) for name in config.observers]
    return [registry.resolve(kind, name) for kind, name in named]


def sources_of(things: Sequence[Registered]) -> set[str]:
    """The modules and files that make the numbers of what :func:`named_things` found."""
    return {thing.source for thing in things if thing.kind != "observers"}


def check_writable(folder: Path) -> None:
    """Raise ConfigError now if runs cannot be written there, not after the training."""
    at = folder
    while not at.exists() and at != at.parent:
        at = at.parent
    if not at.is_dir() or not os.access(at, os.W_OK):
        raise ConfigError(f"cannot write runs to '{folder}'; give another folder with --runs-dir.")
