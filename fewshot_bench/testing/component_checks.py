"""The conformance suites of backbones, data sets, samplers, metrics and observers."""

import json
import math
import re
import tempfile
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial, wraps
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewshot_bench.data import ClassTable, Dataset, LabeledImages, Splits
from fewshot_bench.data.images import SPLITS
from fewshot_bench.engine.evaluation import Metric, measured
from fewshot_bench.episode import Task
from fewshot_bench.errors import ConfigError, FewshotBenchError
from fewshot_bench.hooks import hookimpl, specs
from fewshot_bench.hooks.lifecycle import RunHooks
from fewshot_bench.hooks.registry import LIFECYCLE
from fewshot_bench.nn import per_task
from fewshot_bench.rng import key_of
from fewshot_bench.sampling import ClosedSampler, EpisodeSource, Indices, Sampler, draw_episodes
from fewshot_bench.sampling.base import check_indices
from fewshot_bench.testing import checks
from fewshot_bench.testing.checks import Fault, NotClaimed, require_close
from fewshot_bench.testing.gradients import network_precision_error
from fewshot_bench.testing.method_checks import BATCHES, Shape, builds_alike, require_precise
from fewshot_bench.testing.tiny import TINY, character_images, separable_images
from fewshot_bench.utils.generators import generators_preserved, generators_used, global_generators

SHAPES: tuple[Shape, ...] = ((1, 28, 28), (3, 32, 32), (3, 84, 84))  # tried on a backbone
IMAGES = 30  # on which its precision is measured
NORMALIZE = "normalize with fewshot_bench.nn.TaskBatchNorm instead of nn.BatchNorm2d."
OTHER_SHAPES = "'--image-shape C,H,W' tries others."
CLASSES_PER_FAMILY = 4  # of the table on which samplers are tried


@dataclass(frozen=True)
class BackboneSubject:
    make: Callable[[Shape], nn.Module]
    shapes: tuple[Shape, ...] = SHAPES  # it may refuse some with a ConfigError

    @cached_property
    def accepted(self) -> dict[Shape, str]:
        """{shape that is not refused: its error message, or empty}; Fault if all are refused."""
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
        """The shapes that it works for; ``out-shape`` reports the others."""
        return [shape for shape, error in self.accepted.items() if not error]

    @property
    def shape(self) -> Shape:
        if not self.working:
            raise NotClaimed("it runs on none of the images that it is tried on; see out-shape")
        return self.working[0]

    def build(self, shape: Shape | None = None, seed: int = 0) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make(shape or self.shape)

    def images(self, *axes: int, shape: Shape | None = None) -> Tensor:
        """Random images [*axes, C, H, W]."""
        generator = torch.Generator().manual_seed(0)
        return torch.rand(*axes, *(shape or self.shape), generator=generator)

    def maps(self, shape: Shape) -> Tensor:
        with torch.no_grad():
            return self.build(shape)(self.images(2, shape=shape))


def out_shape(subject: BackboneSubject) -> None:
    """Images [N, C, H, W] become maps [N, c, h, w], and out_shape is (c, h, w)."""
    for shape, error in subject.accepted.items():
        if error:
            raise Fault(
                f"images of {'x'.join(map(str, shape))}: {error}; a factory refuses them with "
                f"fewshot_bench.errors.ConfigError, and {OTHER_SHAPES}"
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


def keeps_nothing(subject: BackboneSubject) -> None:
    """A call draws no random number and changes no parameter and no buffer, in either mode."""
    net, images = subject.build(), subject.images(2)
    for mode in ("training", "evaluation"):
        net.train(mode == "training")
        state = {name: value.clone() for name, value in net.state_dict().items()}
        before = global_generators()
        with generators_preserved(), torch.no_grad():
            net(images)
            used = generators_used(before, global_generators())
        if used:
            raise Fault(
                f"in {mode} mode it draws from {used[0]} (nn.Dropout?): leave it to the method."
            )
        if name := checks.changed_entry(net.state_dict(), state):
            raise Fault(f"in {mode} mode a call changes '{name}'; {NORMALIZE}")


def independent_tasks(subject: BackboneSubject) -> None:
    """Statistics do not cross tasks: a batch of tasks gives what each task alone gives."""
    net = subject.build().double().train()
    images = subject.images(2, 3).double()
    with torch.no_grad():
        whole = per_task(net, images)
        single = torch.cat([per_task(net, images[t : t + 1]) for t in range(2)])
    require_close(whole, single, 1e-9, NORMALIZE)


def trains(subject: BackboneSubject) -> None:
    """Every parameter has a gradient."""
    net, weights = _in_training(subject)
    maps = per_task(net, subject.images(2, 3))
    gradients = torch.autograd.grad(maps.sum(), list(weights.values()), allow_unused=True)
    unused = [name for name, g in zip(weights, gradients, strict=True) if g is None]
    if unused:
        raise Fault(f"'{unused[0]}' ({len(unused)} in all) does not affect the output.")


def precision(subject: BackboneSubject) -> None:
    """Gradients in float32 are those of float64, on images of characters."""
    net, _ = _in_training(subject)
    keys = [torch.tensor([key_of("precision", seed)]) for seed in range(BATCHES)]
    batches = [character_images(key, "images", IMAGES, subject.shape) for key in keys]
    require_precise([network_precision_error(net, images) for images in batches])


def _in_training(subject: BackboneSubject) -> tuple[nn.Module, dict[str, nn.Parameter]]:
    net = subject.build().train()
    weights = {name: p for name, p in net.named_parameters() if p.requires_grad}
    if not weights:
        raise NotClaimed("nothing trains")
    return net, weights


@dataclass
class DatasetSubject:
    make: Callable[[], Dataset]
    root: Path | None = None  # the folder of its files; None if it needs none

    def load(self, folder: str) -> Splits:
        """Read everything again, or decoded files from this temporary folder."""
        splits = self.make().load(self.root, Path(folder, "cache"))
        if not isinstance(splits, Splits):
            raise Fault(f"load() gave {type(splits).__name__}; expected fewshot_bench.Splits.")
        return splits

    @cached_property
    def splits(self) -> Splits:
        """The splits, read once and copied from the files that they are mapped from."""
        with tempfile.TemporaryDirectory() as folder:
            splits = self.load(folder)
            copies: dict[str, Any] = {
                name: replace(part, images=np.array(part.images))
                for name, part in _parts(splits).items()
            }
            return replace(splits, **copies)

    def parts(self) -> dict[str, LabeledImages]:
        return _parts(self.splits)


def _parts(splits: Splits) -> dict[str, LabeledImages]:
    return {name: part for name in SPLITS if (part := getattr(splits, name)) is not None}


def disjoint(subject: DatasetSubject) -> None:
    """No class is in two splits."""
    for (one, a), (two, b) in combinations(subject.parts().items(), 2):
        common = sorted(set(a.class_names) & set(b.class_names))
        if common:
            raise Fault(f"{one} and {two} have {len(common)} classes in common, as '{common[0]}'.")


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
    with tempfile.TemporaryDirectory() as folder:
        for how in ("without a cache", "from the cache"):
            again = subject.load(folder)
            if again.digest != found:
                change = f"from {found[:12]}.. to {again.digest[:12]}.., loaded {how}"
                raise Fault(f"digest changes {change}; compute it in a fixed order.")
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
            EpisodeSource(ClosedSampler(ClassTable(part), Task(2, 1, 1), 0)).batch(range(4))
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
    kind: type[Sampler]
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(
        self, seed: int = 0, *, within_family: bool = False, device: torch.device | str = "cpu"
    ) -> Sampler:
        """The sampler over a tiny table: twelve classes of twelve images, in three families."""
        images = separable_images()
        family = np.arange(len(images.counts)) // CLASSES_PER_FAMILY
        names = tuple(f"family {i}" for i in range(int(family.max()) + 1))
        table = ClassTable(replace(images, families=family, family_names=names), device)
        return self.kind(table, TINY, seed, within_family=within_family, **self.options)


def _first(sampler: Sampler) -> Tensor:
    return torch.arange(min(8, sampler.length or 8))


def valid(subject: SamplerSubject) -> None:
    """Episodes have the task's shape, no image twice, and images of the classes they name."""
    sampler = subject.build()
    last = sampler.length or 10_000  # that its length promises
    for ids in (_first(sampler), torch.arange(max(0, last - 8), last)):
        indices = sampler(ids)
        if not isinstance(indices, Indices):
            raise Fault(f"it gave {type(indices).__name__}, not fewshot_bench.sampling.Indices.")
        try:
            check_indices(indices, subject.build().table, TINY)
        except FewshotBenchError as error:
            raise Fault(f"{error} (episodes {ids[0]} to {ids[-1]}).") from error
    draw_episodes(EpisodeSource(sampler), len(_first(sampler)), "it")


def pure(subject: SamplerSubject) -> None:
    """Episode i is a function of the seed and i, not of the batch or of earlier draws."""
    sampler = subject.build()
    ids = _first(sampler)
    whole = sampler(ids).rows()
    torch.rand(3)
    for i in ids.tolist():
        if not torch.equal(subject.build()(torch.tensor([i])).rows()[0], whole[i]):
            raise Fault(
                f"episode {i} alone differs from episode {i} in a batch of {len(ids)}; draw with "
                "fewshot_bench.rng, keyed by the seed and the episode's number."
            )


def seeded(subject: SamplerSubject) -> None:
    """Another seed gives other episodes."""
    one, two = (sampler(_first(sampler)).rows() for sampler in map(subject.build, (0, 1)))
    if torch.equal(one, two):
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
        indices = sampler(_first(sampler))
    except ConfigError as error:
        raise NotClaimed(str(error)) from error
    family = indices.class_ids // CLASSES_PER_FAMILY
    if bool((family != family[:, :1]).any()):
        raise Fault("it ignores within_family; respect it, or refuse it with a ConfigError.")


def _example() -> tuple[Tensor, Tensor]:
    """Logits [3, 8, 4] and targets [3, 8] for a metric."""
    logits = torch.randn(3, 8, 4, generator=torch.Generator().manual_seed(0))
    return logits, torch.arange(8).remainder(4).expand(3, -1)


_scores = partial(measured, "the metric")  # [T], checked for their shape


def one_score_per_task(metric: Metric) -> None:
    """It gives one finite number per task: [T]."""
    scores = _scores(metric, *_example())
    if not bool(scores.isfinite().all()):
        raise Fault(f"it gives {scores.tolist()} for ordinary logits.")


def tasks_apart(metric: Metric) -> None:
    """The score of a task does not depend on the other tasks."""
    logits, target = _example()
    single = torch.cat([_scores(metric, logits[t : t + 1], target[t : t + 1]) for t in range(3)])
    advice = "reduce over axis 1 (queries) instead of 0."
    require_close(_scores(metric, logits, target), single, 1e-6, advice)


def set_of_queries(metric: Metric) -> None:
    """The order of the queries does not matter."""
    logits, target = _example()
    whole, turned = _scores(metric, logits, target), _scores(metric, logits.flip(1), target.flip(1))
    require_close(whole, turned, 1e-6, "pair logits and targets by axis 1.")


def logits_kept(metric: Metric) -> None:
    """It does not change logits and targets, which other metrics use after it."""
    logits, target = _example()
    before = logits.clone()
    _scores(metric, logits, target)
    if checks.max_difference(before, logits):
        raise Fault("it changes the logits in place; work on a copy.")


def direction_declared(metric: Metric) -> None:
    """Its ``higher_is_better`` is True or False, if it has one (default: True)."""
    declared = getattr(metric, "higher_is_better", True)
    if not isinstance(declared, bool):
        raise Fault(f"higher_is_better: expected True or False, got {declared!r}.")


def follows_a_run(observer: Any) -> None:
    """A class is built without arguments; every hook of a run, called in order, raises nothing."""
    _observe(observer)


def changes_nothing(observer: Any) -> None:
    """It leaves configuration, numbers and record as it gets them, for the observers after it."""
    for hook, before, after in _observe(observer):
        if before != after:
            raise Fault(f"{hook}() changed what it was given; copy it first.")


def _observe(observer: Any) -> list[tuple[str, str, str]]:
    """Call the hooks of a made-up run: [(hook, its arguments before, and after the observer)]."""
    calls: list[tuple[str, str, str]] = []

    def as_text(arguments: tuple[Any, ...]) -> str:
        return json.dumps(
            arguments, default=lambda v: v.tolist() if hasattr(v, "tolist") else str(v)
        )

    def recorder(hook: str) -> Any:
        @hookimpl(wrapper=True)
        @wraps(getattr(specs, hook))
        def record(*arguments: Any) -> Generator[None, Any, Any]:
            before = as_text(arguments)
            result = yield
            calls.append((hook, before, as_text(arguments)))
            return result

        return record

    config = {"method": "made-up", "way": 3, "method_options": {"lr": 1e-3}}
    record = {"id": "made-up", "status": "completed", "config": config, "notes": [],
              "test": {"accuracy": 0.5}, "training": {"steps": 2}}  # fmt: skip
    images, keys = torch.zeros(2, 3, 2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    indices = Indices(images, images.flatten(1), images.flatten(1), None, images[..., 0], keys)
    scores, confusion, ids = np.array([0.5, 0.25]), np.ones((2, 3, 3), np.int64), range(2)
    results: dict[str, Any] = {"scores": scores, "metrics": {"f1": scores}}
    recorders = SimpleNamespace(**{hook: recorder(hook) for hook in LIFECYCLE})
    with tempfile.TemporaryDirectory() as folder:
        try:
            hooks = RunHooks({"the recorder": recorders, "it": observer})
            hooks.run_started(config=config, folder=Path(folder), resumed_from=0)
            for step, split in ((1, "validation"), (2, "test")):
                hooks.train_logged(step=step, metrics={"loss_meta": math.e / step})
                hooks.bind(split="train").sampled(ids, indices)
                bound = hooks.bind(split=split, step=step)
                bound.evaluation_started(episodes=2)
                bound.sampled(ids, indices)
                bound.episodes_scored(ids=ids, confusion=confusion, **results)
                bound.evaluation_finished(**results)
                hooks.checkpoint_saved(step=step, path=Path(folder, "checkpoint"))
            hooks.run_finished(record=record)
        except (FewshotBenchError, TypeError) as error:
            raise Fault(str(error)) from error
    return calls


BACKBONE_CHECKS = (out_shape, finite, builds_alike, keeps_nothing, independent_tasks, trains,
                   precision)  # fmt: skip
DATASET_CHECKS = (disjoint, class_names, digest, license, source, images, episodes, verify)
SAMPLER_CHECKS = (valid, pure, seeded, used_once, families)
METRIC_CHECKS = (one_score_per_task, tasks_apart, set_of_queries, logits_kept, direction_declared)
OBSERVER_CHECKS = (follows_a_run, changes_nothing)
