"""Checks of samplers, metrics and observers."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewshot_bench.data.table import ClassTable
from fewshot_bench.engine.evaluation import Metric, measured
from fewshot_bench.engine.observer import Observer, Observers
from fewshot_bench.episode import Task
from fewshot_bench.errors import ConfigError, FewshotBenchError
from fewshot_bench.sampling.base import EpisodeSource, Indices, Sampler, check_indices
from fewshot_bench.sampling.inspection import draw_episodes
from fewshot_bench.testing.checks import Fault, NotClaimed
from fewshot_bench.testing.subject import off, require_close
from fewshot_bench.testing.tiny import separable_images

CLASSES_OF_A_FAMILY = 4  # of the table on which samplers are tried
TASK = Task(way=3, shot=2, query=2, image_shape=(1, 6, 6))


@dataclass(frozen=True)
class SamplerSubject:
    """A sampler under test: its class, and options of its own."""

    kind: type[Sampler]
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(
        self, seed: int = 0, *, within_family: bool = False, device: torch.device | str = "cpu"
    ) -> Sampler:
        """The sampler over a tiny table."""
        table = self.table(device)
        return self.kind(table, TASK, seed, within_family=within_family, **self.options)

    def table(self, device: torch.device | str = "cpu") -> ClassTable:
        """Twelve classes of twelve images, in three families."""
        images = separable_images(image_shape=TASK.image_shape)
        family = np.arange(len(images.counts)) // CLASSES_OF_A_FAMILY
        names = tuple(f"family {i}" for i in range(int(family.max()) + 1))
        return ClassTable(replace(images, families=family, family_names=names), device)

    def ids(self, sampler: Sampler) -> Tensor:
        """The first episodes: those that a finite plan has."""
        return torch.arange(min(8, sampler.length or 8))

    def later(self, sampler: Sampler) -> Tensor:
        """Some that come much later, up to the last that its length promises."""
        last = sampler.length or 10_000
        return torch.arange(max(0, last - 8), last)


def valid(subject: SamplerSubject) -> None:
    """Episodes have the task's shape, no image twice, and images of the classes they name."""
    sampler = subject.build()
    for ids in (subject.ids(sampler), subject.later(sampler)):
        indices = sampler(ids)
        if not isinstance(indices, Indices):
            given = type(indices).__name__
            raise Fault(f"it gave {given}; fewshot_bench.sampling.base.Indices is wanted.")
        try:
            check_indices(indices, subject.table(), TASK)
        except FewshotBenchError as error:
            raise Fault(f"{error} (episodes {ids[0]} to {ids[-1]}).") from error
    try:
        draw_episodes(EpisodeSource(sampler), len(subject.ids(sampler)), "it")
    except FewshotBenchError as error:
        raise Fault(str(error)) from error


def pure(subject: SamplerSubject) -> None:
    """Episode i is a function of the seed and i, not of the batch or of what was drawn before."""
    sampler = subject.build()
    ids = subject.ids(sampler)
    whole = sampler(ids).rows()
    torch.rand(3)
    for i in ids.tolist():
        single = subject.build()(torch.tensor([i])).rows()
        if not torch.equal(single[0], whole[i]):
            raise Fault(
                f"episode {i} alone is another than in a batch of {len(ids)}; draw with "
                "fewshot_bench.rng, keyed by the seed and the episode's number."
            )


def seeded(subject: SamplerSubject) -> None:
    """Another seed gives other episodes."""
    one, two = (subject.build(seed) for seed in (0, 1))
    if torch.equal(one(subject.ids(one)).rows(), two(subject.ids(two)).rows()):
        raise Fault("seeds 0 and 1 give the same episodes; fold the seed into the key.")


def used_once(subject: SamplerSubject) -> None:
    """No image comes again in the whole plan, where sampling is "open"."""
    sampler = subject.build()
    if sampler.sampling not in ("closed", "open"):
        raise Fault(f"sampling = {sampler.sampling!r}; give 'closed' or 'open'.")
    if sampler.sampling != "open":
        raise NotClaimed(f'sampling = "{sampler.sampling}"')
    if sampler.length is None:
        raise Fault('sampling = "open", but length is None: such a plan has an end.')
    images = sampler(torch.arange(sampler.length)).images().flatten()
    repeated = len(images) - len(images.unique())
    if repeated:
        raise Fault(f"{repeated} of {len(images)} images come again; the plan is not open.")


def families(subject: SamplerSubject) -> None:
    """Where one family is asked for, all classes of an episode are of one, or it says it cannot."""
    try:
        sampler = subject.build(within_family=True)
        indices = sampler(subject.ids(sampler))
    except ConfigError as error:
        raise NotClaimed(str(error)) from error
    family = indices.class_ids // CLASSES_OF_A_FAMILY
    if bool((family != family[:, :1]).any()):
        raise Fault(
            "it draws classes of several families into one episode: heed within_family, or raise "
            "fewshot_bench.errors.ConfigError for it."
        )


@dataclass(frozen=True)
class MetricSubject:
    """A metric under test."""

    metric: Metric

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scores [T], checked for their shape."""
        try:
            return measured("the metric", self.metric, logits, target)
        except FewshotBenchError as error:
            raise Fault(str(error)) from error

    def example(self, tasks: int = 3) -> tuple[Tensor, Tensor]:
        """Logits [T, 8, 4] and targets [T, 8]."""
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(tasks, 8, 4, generator=generator)
        return logits, torch.arange(8).remainder(4).expand(tasks, -1)


def one_score_per_task(subject: MetricSubject) -> None:
    """It gives one finite number per task: [T]."""
    scores = subject(*subject.example())
    if not bool(scores.isfinite().all()):
        raise Fault(f"it gives {scores.tolist()} for ordinary logits.")


def tasks_apart(subject: MetricSubject) -> None:
    """The score of a task does not depend on the other tasks."""
    logits, target = subject.example()
    single = torch.cat([subject(logits[t : t + 1], target[t : t + 1]) for t in range(3)])
    require_close(subject(logits, target), single, 1e-6, "reduce over axis 1 (queries), not 0.")


def set_of_queries(subject: MetricSubject) -> None:
    """The order of the queries does not matter."""
    logits, target = subject.example()
    turned = subject(logits.flip(1), target.flip(1))
    require_close(subject(logits, target), turned, 1e-6, "pair logits and targets by axis 1.")


def logits_kept(subject: MetricSubject) -> None:
    """It leaves logits and targets as they are, for the metrics after it."""
    logits, target = subject.example()
    before = logits.clone()
    subject(logits, target)
    if off(before, logits):
        raise Fault("it changes the logits in place; work on a copy.")


@dataclass(frozen=True)
class ObserverSubject:
    """An observer under test: its class."""

    kind: type[Observer]


def follows_a_run(subject: ObserverSubject) -> None:
    """It is built without arguments and takes every event of a run, in order."""
    _watch(subject)


def changes_nothing(subject: ObserverSubject) -> None:
    """It leaves configuration, numbers and record as it gets them."""
    told = _watch(subject)
    for event, before, after in told:
        if before != after:
            raise Fault(f"{event}() changed what it was given; copy it first.")


def _watch(subject: ObserverSubject) -> list[tuple[str, Any, Any]]:
    """A made-up run; what each event was told, before and after."""
    config = {"method": "made-up", "way": 5, "method_options": {"lr": 1e-3}}
    record = {"id": "made-up", "status": "completed", "config": config, "notes": [],
              "test": {"accuracy": 0.5}, "training": {"steps": 2}}  # fmt: skip
    events: list[tuple[str, tuple[Any, ...]]] = [
        ("run_started", (config,)),
        ("train_logged", (1, {"loss_meta": 1.5})),
        ("evaluation_ended", ("validation", [0.5, 0.25])),
        ("train_logged", (2, {"loss_meta": math.e})),
        ("evaluation_ended", ("test", [0.5, 0.75])),
        ("run_ended", (record,)),
    ]
    told = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            observers = Observers({"it": subject.kind()})
            observers.follow(Path(folder))
            for event, arguments in events:
                before = copy.deepcopy(arguments)
                observers.tell(event, *arguments)
                told.append((event, before, arguments))
        except (FewshotBenchError, TypeError) as error:
            raise Fault(str(error)) from error
    return told


SAMPLER = (valid, pure, seeded, used_once, families)
METRIC = (one_score_per_task, tasks_apart, set_of_queries, logits_kept)
OBSERVER = (follows_a_run, changes_nothing)
