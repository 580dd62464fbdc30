"""The conformance suites of backbones, data sets, samplers, metrics and observers."""

from __future__ import annotations

import functools
import json
import math
import re
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewshot_bench.data.images import Dataset, LabeledImages, Splits
from fewshot_bench.data.table import ClassTable
from fewshot_bench.engine.evaluation import Metric, measured
from fewshot_bench.episode import Task
from fewshot_bench.errors import ConfigError, FewshotBenchError
from fewshot_bench.hooks import hookimpl, specs
from fewshot_bench.hooks.lifecycle import RunHooks
from fewshot_bench.hooks.registry import LIFECYCLE
from fewshot_bench.nn import per_task
from fewshot_bench.rng import key_of
from fewshot_bench.sampling.base import (
    EpisodeSource,
    Indices,
    Sampler,
    check_indices,
)
from fewshot_bench.sampling.closed import ClosedSampler
from fewshot_bench.sampling.inspection import draw_episodes
from fewshot_bench.testing.checks import (
    Fault,
    NotClaimed,
    changed_entry,
    max_difference,
    require_close,
)
from fewshot_bench.testing.gradients import network_precision_error
from fewshot_bench.testing.method_checks import BATCHES, Shape, require_precise
from fewshot_bench.testing.tiny import character_images, separable_images
from fewshot_bench.utils.generators import generators_preserved, generators_used, global_generators

SHAPES: tuple[Shape, ...] = ((1, 28, 28), (3, 32, 32), (3, 84, 84))  # tried on a backbone
IMAGES = 30  # on which its precision is measured
NORMALIZE = "normalize with fewshot_bench.nn.TaskBatchNorm instead of nn.BatchNorm2d."
OTHER_SHAPES = "'--image-shape C,H,W' tries others."
CLASSES_PER_FAMILY = 4  # of the table on which samplers are tried
TASK = Task(way=3, shot=2, query=2, image_shape=(1, 6, 6))


@dataclass(frozen=True)
class BackboneSubject:
    """A backbone under test.

    Arguments:
        make: its factory, from an image shape to a module.
        shapes: that it is tried on; it may refuse some with a ConfigError.
    """

    make: Callable[[Shape], nn.Module]
    shapes: tuple[Shape, ...] = SHAPES

    @cached_property
    def accepted(self) -> dict[Shape, str]:
        """{shape that is not refused: its error message, or empty}.

        Raises:
            Fault: all are refused.
        """
        found, refused = {}, ""
        for shape in self.shapes:
            try:
                self.maps(shape)
                found[shape] = ""
            except ConfigError as error:
                refused = str(error)
            except Exception as error:
                found[shape] = f"{type(error).__name__}: {error}"
        if not found:
            sizes = " and ".join("x".join(map(str, shape)) for shape in self.shapes)
            raise Fault(f"it refuses images of {sizes} ({refused}); {OTHER_SHAPES}")
        return found

    @property
    def working(self) -> list[Shape]:
        """The shapes that it works for."""
        return [shape for shape, error in self.accepted.items() if not error]

    @property
    def shape(self) -> Shape:
        """The first shape that it works for; ``out-shape`` reports the others."""
        if not self.working:
            raise NotClaimed("it runs on none of the images that it is tried on; see out-shape")
        return self.working[0]

    def build(self, shape: Shape, seed: int = 0) -> nn.Module:
        """The module, initialized by a seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make(shape)

    def images(self, *axes: int, shape: Shape | None = None) -> Tensor:
        """Random images [*axes, C, H, W]."""
        generator = torch.Generator().manual_seed(0)
        return torch.rand(*axes, *(shape or self.shape), generator=generator)

    def maps(self, shape: Shape) -> Tensor:
        """Feature maps of two images."""
        with torch.no_grad():
            return self.build(shape)(self.images(2, shape=shape))


def out_shape(subject: BackboneSubject) -> None:
    """Images [N, C, H, W] become maps [N, c, h, w], and out_shape is (c, h, w)."""
    for shape, error in subject.accepted.items():
        if error:
            raise Fault(
                f"images of {'x'.join(map(str, shape))}: {error}; a network that does not accept "
                "them has to raise fewshot_bench.errors.ConfigError in its factory, and "
                f"{OTHER_SHAPES}"
            )
        declared = getattr(subject.build(shape), "out_shape", None)
        found = tuple(subject.maps(shape).shape)
        if found != (2, *(declared or ())):
            raise Fault(
                f"for images {shape} it gives {found} and out_shape is {declared}; expected "
                "(N, c, h, w) and (c, h, w)."
            )


def finite(subject: BackboneSubject) -> None:
    """Feature maps of ordinary images are finite."""
    for shape in subject.working:
        if not bool(subject.maps(shape).isfinite().all()):
            raise Fault(f"NaN or infinity for images {shape} in [0, 1].")


def builds_alike(subject: BackboneSubject) -> None:
    """The same seed builds the same network."""
    one, two = (subject.build(subject.shape, 3).state_dict() for _ in range(2))
    if name := changed_entry(one, two):
        raise Fault(f"'{name}' differs between two builds with one seed.")


def keeps_nothing(subject: BackboneSubject) -> None:
    """A call draws no random number and changes no parameter and no buffer, in either mode."""
    net, images = subject.build(subject.shape), subject.images(2)
    for mode in ("training", "evaluation"):
        net.train(mode == "training")
        state = {name: value.clone() for name, value in net.state_dict().items()}
        before = global_generators()
        with generators_preserved(), torch.no_grad():
            net(images)
            used = generators_used(before, global_generators())
        if used:
            raise Fault(
                f"in {mode} mode it draws from {used[0]} (nn.Dropout?); a backbone has no key to "
                "draw from: leave it to the method."
            )
        if name := changed_entry(net.state_dict(), state):
            raise Fault(f"in {mode} mode a call changes '{name}'; {NORMALIZE}")


def independent_tasks(subject: BackboneSubject) -> None:
    """Statistics do not cross tasks: a batch of tasks gives what each task alone gives."""
    net = subject.build(subject.shape).double().train()
    images = subject.images(2, 3).double()
    with torch.no_grad():
        whole = per_task(net, images)
        single = torch.cat([per_task(net, images[t : t + 1]) for t in range(2)])
    require_close(whole, single, 1e-9, NORMALIZE)


def _trainable(net: nn.Module) -> dict[str, nn.Parameter]:
    found = {name: p for name, p in net.named_parameters() if p.requires_grad}
    if not found:
        raise NotClaimed("nothing trains")
    return found


def trains(subject: BackboneSubject) -> None:
    """Every parameter has a gradient."""
    net = subject.build(subject.shape).train()
    maps = per_task(net, subject.images(2, 3))
    weights = _trainable(net)
    gradients = torch.autograd.grad(maps.sum(), list(weights.values()), allow_unused=True)
    unused = [name for name, g in zip(weights, gradients, strict=True) if g is None]
    if unused:
        raise Fault(f"'{unused[0]}' ({len(unused)} in all) does not affect the output.")


def precision(subject: BackboneSubject) -> None:
    """Gradients in float32 are those of float64, on images of characters."""
    net = subject.build(subject.shape).train()
    _trainable(net)
    keys = [torch.tensor([key_of("precision", seed)]) for seed in range(BATCHES)]
    batches = [character_images(key, "images", IMAGES, subject.shape) for key in keys]
    require_precise([network_precision_error(net, images) for images in batches])


@dataclass
class DatasetSubject:
    """A data set under test.

    Arguments:
        make: builds it.
        root: the folder of its files; None if it needs none.
    """

    make: Callable[[], Dataset]
    root: Path | None = None

    def load(self, cache: Path) -> Splits:
        """Read everything again."""
        splits = self.make().load(self.root, cache)
        if not isinstance(splits, Splits):
            raise Fault(
                f"load() gave {type(splits).__name__}; return fewshot_bench.Splits(train, "
                "validation, test, digest, license, source)."
            )
        return splits

    @cached_property
    def splits(self) -> Splits:
        """The splits, read once and copied from the files that they are mapped from."""
        with cache_folder() as cache:
            splits = self.load(cache)
            images: dict[str, Any] = {
                name: replace(part, images=np.array(part.images))
                for name in ("train", "validation", "test")
                if (part := getattr(splits, name)) is not None
            }
            return replace(splits, **images)

    def parts(self) -> dict[str, LabeledImages]:
        """{name: split}, without those that are None."""
        splits = self.splits
        found = {"train": splits.train, "validation": splits.validation, "test": splits.test}
        return {name: images for name, images in found.items() if images is not None}


@contextmanager
def cache_folder() -> Iterator[Path]:
    """An empty temporary folder for decoded files."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path) / "cache"


def disjoint(subject: DatasetSubject) -> None:
    """No class is in two splits."""
    for (one, a), (two, b) in combinations(subject.parts().items(), 2):
        common = sorted(set(a.class_names) & set(b.class_names))
        if common:
            raise Fault(
                f"class '{common[0]}' ({len(common)} in all) is in {one} and in {two}; test "
                "classes must not be training classes."
            )


def class_names(subject: DatasetSubject) -> None:
    """Class names are unique within a split."""
    for split, images in subject.parts().items():
        doubled = len(images.class_names) - len(set(images.class_names))
        if doubled:
            raise Fault(f"{doubled} class names of {split} are duplicates; make them unique.")


def digest(subject: DatasetSubject) -> None:
    """Loading again, with and without a cache, gives the same digest and the same images."""
    found = subject.splits.digest
    if not re.fullmatch(r"[0-9a-f]{64}", str(found)):
        raise Fault(f"digest is {found!r}; expected the hex sha256 of the content.")
    with cache_folder() as cache:
        for how in ("without a cache", "from the cache"):
            again = subject.load(cache)
            if again.digest != found:
                raise Fault(
                    f"the digest loaded {how} is {again.digest[:12]}.., before {found[:12]}..; "
                    "compute it from the content in a fixed order."
                )
            for split, images in subject.parts().items():
                if not np.array_equal(np.asarray(getattr(again, split).images), images.images):
                    raise Fault(f"{split} loaded {how} has other images, and the same digest.")


def license(subject: DatasetSubject) -> None:
    """The license is named."""
    if not str(subject.splits.license or "").strip():
        raise Fault("license is empty; give an SPDX name, or a sentence if it is not known.")


def source(subject: DatasetSubject) -> None:
    """The source is named: where the data come from, or a citation."""
    if not str(subject.splits.source or "").strip():
        raise Fault("source is empty; name where the data come from.")


def images(subject: DatasetSubject) -> None:
    """Images are not constant, and all splits have one shape."""
    shapes = {name: part.image_shape for name, part in subject.parts().items()}
    if len(set(shapes.values())) > 1:
        raise Fault(f"splits differ in image shape: {shapes}.")
    for name, part in subject.parts().items():
        if int(part.images.min()) == int(part.images.max()):
            raise Fault(f"every pixel of {name} is {int(part.images.min())}.")


def episodes(subject: DatasetSubject) -> None:
    """Each split gives 2-way 1-shot episodes of one query."""
    for name, part in subject.parts().items():
        try:
            sampler = ClosedSampler(ClassTable(part), Task(2, 1, 1), 0)
            EpisodeSource(sampler).batch(range(4))
        except FewshotBenchError as error:
            raise Fault(f"{name}: {error}") from error


def verify(subject: DatasetSubject) -> None:
    """verify() returns a sentence about what it checked of the files."""
    dataset = subject.make()
    if not dataset.needs_files:
        raise NotClaimed("needs_files = False")
    report = dataset.verify(subject.root)
    if not isinstance(report, str) or not report.strip():
        raise Fault(f"verify() gave {report!r}; expected a sentence about what was checked.")


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
        family = np.arange(len(images.counts)) // CLASSES_PER_FAMILY
        names = tuple(f"family {i}" for i in range(int(family.max()) + 1))
        return ClassTable(replace(images, families=family, family_names=names), device)

    def first(self, sampler: Sampler) -> Tensor:
        """Ids of the first episodes: those that a finite plan has."""
        return torch.arange(min(8, sampler.length or 8))

    def later(self, sampler: Sampler) -> Tensor:
        """Ids of episodes much later, up to the last one that its length promises."""
        last = sampler.length or 10_000
        return torch.arange(max(0, last - 8), last)


def valid(subject: SamplerSubject) -> None:
    """Episodes have the task's shape, no image twice, and images of the classes they name."""
    sampler = subject.build()
    for ids in (subject.first(sampler), subject.later(sampler)):
        indices = sampler(ids)
        if not isinstance(indices, Indices):
            raise Fault(
                f"it gave {type(indices).__name__}; expected fewshot_bench.sampling.base.Indices."
            )
        try:
            check_indices(indices, subject.table(), TASK)
        except FewshotBenchError as error:
            raise Fault(f"{error} (episodes {ids[0]} to {ids[-1]}).") from error
    draw_episodes(EpisodeSource(sampler), len(subject.first(sampler)), "it")


def pure(subject: SamplerSubject) -> None:
    """Episode i is a function of the seed and i, not of the batch or of earlier draws."""
    sampler = subject.build()
    ids = subject.first(sampler)
    whole = sampler(ids).rows()
    torch.rand(3)
    for i in ids.tolist():
        single = subject.build()(torch.tensor([i])).rows()
        if not torch.equal(single[0], whole[i]):
            raise Fault(
                f"episode {i} alone differs from episode {i} in a batch of {len(ids)}; draw with "
                "fewshot_bench.rng, keyed by the seed and the episode's number."
            )


def seeded(subject: SamplerSubject) -> None:
    """Another seed gives other episodes."""
    one, two = (subject.build(seed) for seed in (0, 1))
    if torch.equal(one(subject.first(one)).rows(), two(subject.first(two)).rows()):
        raise Fault("seeds 0 and 1 give the same episodes; fold the seed into the key.")


def used_once(subject: SamplerSubject) -> None:
    """No image is used twice in the whole plan, where sampling is "open"."""
    sampler = subject.build()
    if sampler.sampling not in ("closed", "open"):
        raise Fault(f"sampling = {sampler.sampling!r}; expected 'closed' or 'open'.")
    if sampler.sampling != "open":
        raise NotClaimed(f'sampling = "{sampler.sampling}"')
    if sampler.length is None:
        raise Fault('sampling = "open", but length is None; expected the number of episodes.')
    images = sampler(torch.arange(sampler.length)).images().flatten()
    repeated = len(images) - len(images.unique())
    if repeated:
        raise Fault(f"{repeated} of {len(images)} images are used again; the plan is not open.")


def families(subject: SamplerSubject) -> None:
    """With within_family, all classes of an episode are of one family, or it is refused."""
    try:
        sampler = subject.build(within_family=True)
        indices = sampler(subject.first(sampler))
    except ConfigError as error:
        raise NotClaimed(str(error)) from error
    family = indices.class_ids // CLASSES_PER_FAMILY
    if bool((family != family[:, :1]).any()):
        raise Fault(
            "it draws classes of several families into one episode: respect within_family, or "
            "raise fewshot_bench.errors.ConfigError for it."
        )


@dataclass(frozen=True)
class MetricSubject:
    """A metric under test."""

    metric: Metric

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scores [T], checked for their shape."""
        return measured("the metric", self.metric, logits, target)

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
    advice = "reduce over axis 1 (queries) instead of 0."
    require_close(subject(logits, target), single, 1e-6, advice)


def set_of_queries(subject: MetricSubject) -> None:
    """The order of the queries does not matter."""
    logits, target = subject.example()
    turned = subject(logits.flip(1), target.flip(1))
    require_close(subject(logits, target), turned, 1e-6, "pair logits and targets by axis 1.")


def logits_kept(subject: MetricSubject) -> None:
    """It does not change logits and targets, which other metrics use after it."""
    logits, target = subject.example()
    before = logits.clone()
    subject(logits, target)
    if max_difference(before, logits):
        raise Fault("it changes the logits in place; work on a copy.")


def direction_declared(subject: MetricSubject) -> None:
    """Its ``higher_is_better`` is True or False, if it has one (default: True)."""
    declared = getattr(subject.metric, "higher_is_better", True)
    if not isinstance(declared, bool):
        raise Fault(f"higher_is_better: expected True or False, got {declared!r}.")


@dataclass(frozen=True)
class ObserverSubject:
    """An observer under test: a class, an instance or a module."""

    observer: Any


def follows_a_run(subject: ObserverSubject) -> None:
    """A class is built without arguments; every hook of a run, called in order, raises nothing."""
    _observe(subject)


def changes_nothing(subject: ObserverSubject) -> None:
    """It leaves configuration, numbers and record as it gets them, for the observers after it."""
    for hook, before, after in _observe(subject):
        if before != after:
            raise Fault(f"{hook}() changed what it was given; copy it first.")


def _observe(subject: ObserverSubject) -> list[tuple[str, str, str]]:
    """Call the hooks of a made-up run: [(hook, its arguments before, and after the observer)]."""
    calls: list[tuple[str, str, str]] = []

    def recorder(hook: str) -> Any:
        @hookimpl(wrapper=True)
        @functools.wraps(getattr(specs, hook))
        def record(*arguments: Any) -> Generator[None, Any, Any]:
            before = _as_text(arguments)
            result = yield
            calls.append((hook, before, _as_text(arguments)))
            return result

        return record

    config = {"method": "made-up", "way": 3, "method_options": {"lr": 1e-3}}
    record = {"id": "made-up", "status": "completed", "config": config, "notes": [],
              "test": {"accuracy": 0.5}, "training": {"steps": 2}}  # fmt: skip
    images, keys = torch.zeros(2, 3, 2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    indices = Indices(images, images.flatten(1), images.flatten(1), None, images[..., 0], keys)
    scores, confusion, ids = np.array([0.5, 0.25]), np.ones((2, 3, 3), np.int64), range(2)
    recorders = SimpleNamespace(**{hook: recorder(hook) for hook in LIFECYCLE})
    with tempfile.TemporaryDirectory() as folder:
        try:
            hooks = RunHooks({"the recorder": recorders, "it": subject.observer})
            hooks.run_started(config=config, folder=Path(folder), resumed_from=0)
            for step, split in ((1, "validation"), (2, "test")):
                hooks.train_logged(step=step, metrics={"loss_meta": math.e / step})
                hooks.bind(split="train").sampled(ids, indices)
                bound = hooks.bind(split=split, step=step)
                bound.evaluation_started(episodes=2)
                bound.sampled(ids, indices)
                bound.episodes_scored(
                    ids=ids,
                    scores=scores,
                    metrics={"f1": scores},
                    confusion=confusion,
                )
                bound.evaluation_finished(scores=scores, metrics={"f1": scores})
                hooks.checkpoint_saved(step=step, path=Path(folder, "checkpoint"))
            hooks.run_finished(record=record)
        except (FewshotBenchError, TypeError) as error:
            raise Fault(str(error)) from error
    return calls


def _as_text(arguments: tuple[Any, ...]) -> str:
    return json.dumps(arguments, default=lambda v: v.tolist() if hasattr(v, "tolist") else str(v))


BACKBONE_CHECKS = (out_shape, finite, builds_alike, keeps_nothing, independent_tasks, trains,
                   precision)  # fmt: skip
DATASET_CHECKS = (disjoint, class_names, digest, license, source, images, episodes, verify)
SAMPLER_CHECKS = (valid, pure, seeded, used_once, families)
METRIC_CHECKS = (
    one_score_per_task, tasks_apart, set_of_queries, logits_kept, direction_declared,
)  # fmt: skip
OBSERVER_CHECKS = (follows_a_run, changes_nothing)
