"""What a run is made of before it starts: names resolved, data read, the record begun."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fewshot_bench.runs import build
from fewshot_bench.sampling.batches import BatchSource
from fewshot_bench.config.resolve import RunConfig
from fewshot_bench.data.overlap import NOTHING, Seen, check_shape, notes
from fewshot_bench.utils.devices import pick_device
from fewshot_bench.sampling.inspection import Drawn, draw
from fewshot_bench.engine.executors.choice import choose
from fewshot_bench.engine.evaluation import Metric, measured
from fewshot_bench.engine.executors.eager import Eager
from fewshot_bench.engine.observer import Observer, Observers, Progress
from fewshot_bench.errors import ConfigError, blame
from fewshot_bench.hooks.single_file import is_file
from fewshot_bench.hooks.registry import Registered, Registry
from fewshot_bench.method import Method
from fewshot_bench.results.record.code import code_digest, code_of
from fewshot_bench.results.record.environment import describe_device, environment
from fewshot_bench.results.record.io import SCHEMA_VERSION
from fewshot_bench.results.record.files import empty_timing, task_numbers
from fewshot_bench.runs.inputs import inputs_of
from fewshot_bench.sampling.base import EpisodeSource
from fewshot_bench.runs.seen import checked, seen_by
from fewshot_bench.runs.training_summary import training_summary


@dataclass
class Parts:
    """Everything of a run that is not a number yet."""

    config: RunConfig
    registry: Registry
    progress: Progress
    observers: Observers
    metrics: dict[str, Metric]
    device: torch.device
    data: build.Data
    things: list[Registered]  # every plugin object that is named; the method first
    inputs: list[dict[str, Any]]  # what is read, as it was before anything was built from it
    method: Method
    lowering: Eager
    train: EpisodeSource | BatchSource
    unlabeled: EpisodeSource | None  # tasks without labels, for methods that learn from them
    validation: EpisodeSource | None
    test: EpisodeSource
    seen: Seen  # what took part in making the weights
    overlap: dict[str, Any] | None  # the test classes among it; None: nobody asked
    drawn: Drawn | None  # the episodes of the evaluation; None: there is none


def prepare(
    config: RunConfig,
    progress: Progress,
    *,
    train_split: bool = True,
    seen: Seen | None = None,
    part: str = "test",
) -> Parts:
    """Resolve every name, read the data, build the method; nothing is trained yet.

    Arguments:
        config: of the run.
        progress: is told of what takes time.
        train_split: whether anything is to be trained; else that split stays on the host.
        seen: what took part in making the weights, where the run does not make them itself.
        part: what the evaluation is of: the ``test`` or the ``validation`` split.

    Raises:
        DataError: classes to be tested took part in making the weights.
        FewshotBenchError: a setting, a data file or a plugin is at fault.
    """
    registry = Registry.discover()
    device = pick_device(config.device)
    observers = Observers(_observers(config, registry))
    metrics = _metrics(config, registry)
    progress.message(f"reading {config.dataset}")
    data = build.load_data(config, registry)
    splits = data.splits

    def source(name: str, *, asked: bool = False) -> EpisodeSource:
        images = getattr(splits, name)
        return build.episodes(images, config, registry, name, device, asked=asked)

    def training() -> tuple[EpisodeSource | BatchSource, EpisodeSource | None]:
        if pretrained:
            return build.batches(splits.train, config, device), None
        return build.training_episodes(
            splits.train, config, device, unlabeled=method.unlabeled_tasks
        )

    if getattr(splits, part) is None:
        raise ConfigError(f"--part {part}: {config.dataset} has no {part} split.")
    test_source = source(part, asked=True)
    if test_source.sampler.length is not None:
        progress.message(
            f"the open plan has {test_source.sampler.length} episodes; no image is used twice"
        )
    task = build.shaped(build.train_task(config), splits.test, config)
    kind = registry.resolve("methods", config.method).load()
    pretrained = kind.source == "batches"
    if pretrained:
        task = replace(task, way=len(splits.train.counts))
    things = build.named_things(config, registry, kind.wants_backbone)
    inputs = inputs_of(config, registry, data, things)
    method = build.build(config, registry, task, device)
    method.check_task(build.eval_task(config))
    if train_split:
        seen = seen_by(config, registry, splits, trains=bool(method.players()))
    overlap, drawn = None, None
    if seen is not None:
        check_shape(splits.test.image_shape, seen, config.dataset)
        images = getattr(splits, part)
        overlap = checked(images, seen, part, allowed=config.allow_overlap)
        count = min(config.episodes, test_source.sampler.length or config.episodes)
        title = registry.resolve("samplers", config.sampling).title
        drawn = draw(test_source, count, title)
    train, unlabeled = training() if train_split else (test_source, None)
    return Parts(
        config,
        registry,
        progress,
        observers,
        metrics,
        device,
        data,
        things,
        inputs,
        method,
        choose_lowering(config, method, device, progress),
        train,
        unlabeled,
        source("validation") if splits.validation is not None and train_split else None,
        test_source,
        seen or NOTHING,
        overlap,
        drawn,
    )


def _observers(config: RunConfig, registry: Registry) -> dict[str, Observer]:
    made = {}
    for name in config.observers:
        item = registry.resolve("observers", name)
        with blame(item.title):
            made[item.title] = item.load()()
    return made


def _metrics(config: RunConfig, registry: Registry) -> dict[str, Metric]:
    """The metrics by name, each tried on made-up logits: after the training would be too late."""
    items = {name: registry.resolve("metrics", name) for name in config.metrics}
    metrics = {name: partial(measured, item.title, item.load()) for name, item in items.items()}
    queries = config.way * config.query
    logits = torch.linspace(-1, 1, 2 * queries * config.way).reshape(2, queries, config.way)
    target = torch.arange(queries).remainder(config.way).expand(2, -1)
    for metric in metrics.values():
        metric(logits, target)
    return dict(metrics)


def choose_lowering(
    config: RunConfig, method: Method, device: torch.device, progress: Progress
) -> Eager:
    """What runs a method as configured."""
    return choose(
        "eager" if config.detect_anomaly else config.engine,  # what looks is a thread's own
        method,
        device,
        precision=config.precision,
        task_chunk=config.task_chunk,
        tell=progress.message,
    )


def describe(parts: Parts, folder: Path) -> dict[str, Any]:
    """The record as it stands before anything was trained."""
    config, data, things = parts.config, parts.data, parts.things
    method = things[0]
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
        "train_task": task_numbers(build.train_task(config)),
        "task": task_numbers(build.eval_task(config)),
        "seed": config.seed,
        "episode_seed": config.episode_seed,
        "preset": config.preset,
        "config": config.to_dict(),
        "parameters": sum(p.numel() for p in parts.method.parameters()),
        "plugin": {"distribution": method.distribution, "version": method.version},
        "plugins": [thing.identity for thing in things],
        "environment": {
            **environment(),
            "code": code_digest(build.sources_of(things)),
        },
        "device": describe_device(parts.device),
        "episodes_digest": None,
        "part": "test",
        "sampler": _sampler(parts),
        "overlap": parts.overlap,
        "test": None,
        "validation": None,
        "training": None,
        "training_summary": training_summary(config, parts.method, parts.train, data, parts.inputs),
        "timing": empty_timing(),
        "notes": [
            *data.splits.notes,
            *(config.notes if parts.method.players() else ()),
            *(notes(parts.overlap) if parts.overlap else ()),
        ],
        "inputs": parts.inputs,
        "weights": None,
        "seen": None,
        "error": None,
    }


def _sampler(parts: Parts) -> dict[str, Any] | None:
    """The record's ``sampler``: what drew the episodes, and what they are."""
    if parts.drawn is None:
        return None
    item = parts.registry.resolve("samplers", parts.config.sampling)
    options = parts.config.sampling_options
    return {
        **{name: item.identity[name] for name in ("name", "distribution", "version")},
        "options": {n.removeprefix("sampling_"): v for n, v in options.items()},
        "code": code_of(item.source).sha256,
        "sampling": parts.test.sampler.sampling,
        **parts.drawn.counts(),
    }


def stem(config: RunConfig) -> str:
    """The readable part of a run's name; nothing in it can leave the runs folder."""
    method = Path(config.method).name if is_file(config.method) else config.method
    name = f"{method}-{config.dataset}-{config.way}w{config.shot}s"
    return re.sub(r"[^A-Za-z0-9]+", "-", name)[:60].strip("-").lower()
