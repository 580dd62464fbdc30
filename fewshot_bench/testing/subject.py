"""A method under test: how it is built, and the episodes that it is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from fewshot_bench.data.table import ClassTable
from fewshot_bench.engine.executors.eager import Eager
from fewshot_bench.engine.plan import Plan
from fewshot_bench.engine.training import Trainer
from fewshot_bench.episode import Episode, Task
from fewshot_bench.errors import ConfigError
from fewshot_bench.method import Method
from fewshot_bench.nn.norm import Statistics
from fewshot_bench.sampling.base import EpisodeSource
from fewshot_bench.sampling.batches import BatchSource
from fewshot_bench.sampling.closed import ClosedSampler
from fewshot_bench.testing.checks import Fault, NotClaimed
from fewshot_bench.testing.tiny import TINY, TinyBackbone, separable_images, tiny_episode
from fewshot_bench.utils.generators import generators_preserved

CHECKED = replace(TINY, image_shape=(1, 8, 8), pixel_range=(-1.0, 1.0))
Make = Callable[[Task, nn.Module | None], Method]


STEPS, TASKS = 40, 4  # of a short training
RGB = (3, *CHECKED.image_shape[1:])
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class MethodSubject:
    """A method under test.

    Arguments:
        kind: its class.
        make: from a task and a backbone (None if it wants none) to the method; default: ``kind``.
        task: the episodes that it is checked on.
        statistics: of the tiny backbone. With running ones, nothing but the method itself can make
            a prediction depend on other queries.
        shapes: of images that it is checked on besides those of the task.
    """

    kind: type[Method]
    make: Make | None = None
    task: Task = CHECKED
    statistics: Statistics = "running"
    shapes: tuple[Shape, ...] = (RGB,)

    def variants(self) -> Iterator[tuple[str, MethodSubject]]:
        """It with both kinds of statistics and all shapes of images, and words for each.

        Left out: a shape that the method refuses with a ConfigError (but for that of the task).
        """
        yield "", self
        statistics: Statistics = "batch" if self.kind.wants_backbone else "running"
        for shape in self.shapes or (self.task.image_shape,):
            task = replace(self.task, image_shape=shape)
            other = replace(self, task=task, statistics=statistics, shapes=())
            try:
                other.build()
            except ConfigError:
                continue
            size = "x".join(map(str, shape))
            kind = " and batch statistics" if self.kind.wants_backbone else ""
            if other != replace(self, shapes=()):
                yield f"with images {size}{kind}: ", other

    @cached_property
    def small(self) -> MethodSubject:
        """It with images no larger than the suite's own, where the method takes such.

        With larger ones the random tasks are so far apart that losses are next to nothing, which
        leaves finite differences nothing but rounding, and an inner learning rate that a method
        has for its usual networks is too large for a tiny network of many more features.
        """
        task = replace(self.task, image_shape=self._shrunk(self.task.image_shape))
        shapes = tuple(dict.fromkeys(self._shrunk(shape) for shape in self.shapes))
        return replace(self, task=task, shapes=shapes)

    def _shrunk(self, shape: Shape) -> Shape:
        """The shape within the suite's own height and width; itself where that does not run."""
        channels, height, width = shape
        _, high, wide = CHECKED.image_shape
        less = channels, min(height, high), min(width, wide)
        if less == shape:
            return shape
        other = replace(self, task=replace(self.task, image_shape=less), shapes=())
        try:
            with generators_preserved():
                method = other.build()
                predict(method, other.episode())
                method.train().losses(other.training_episode())
        except Exception:
            # It is made for other images, or at fault at any size, which the check then tells.
            return shape
        return less

    @cached_property
    def trained(self) -> Method:
        """The method after a short training (or as it is built, where nothing trains)."""
        method = self.build()
        trainer = Trainer(method, Eager(method), self.source("train"), Plan(STEPS, TASKS))
        if trainer.players:
            trainer.run()
        return method

    @property
    def name(self) -> str:
        """For messages."""
        return self.kind.__name__

    @property
    def training_task(self) -> Task:
        """What the method is built for: all training classes if it is pretrained."""
        if self.kind.source == "batches":
            return replace(self.task, way=len(self.table("train").class_start))
        return self.task

    def build(self, seed: int = 0) -> Method:
        """The method, initialized by a seed, over the tiny backbone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            backbone = None
            if self.kind.wants_backbone:
                backbone = TinyBackbone(self.task.image_shape, statistics=self.statistics)
            arguments = (backbone,) if self.kind.wants_backbone else ()
            make: Callable[..., Any] = self.make or self.kind
            method = make(self.training_task, *arguments)
        if not isinstance(method, Method):
            raise Fault(
                f"building it gave a {type(method).__name__}; a subclass of fewshot_bench.Method "
                "is wanted."
            )
        return method

    def episode(self, tasks: int = 2, seed: int = 0, dtype: torch.dtype = torch.float32) -> Episode:
        """Tasks to learn and to classify."""
        task = self.task
        return tiny_episode(
            task.way, task.shot, task.query, tasks, task.image_shape, task.unlabeled,
            distractors=task.distractors, seed=seed, dtype=dtype,
        )  # fmt: skip

    def training_episode(
        self, tasks: int = 2, seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> Episode:
        """What ``losses`` gets: the same, or mini-batches for a method with that source."""
        if self.kind.source == "episodes":
            return self.episode(tasks, seed, dtype)
        source = BatchSource(self.table("train"), self.task.way * self.task.query, seed, dtype)
        return source.batch(range(tasks))

    def table(self, split: str, device: torch.device | str = "cpu") -> ClassTable:
        """The tiny separable data set; its two splits have different patterns."""
        images = separable_images(
            image_shape=self.task.image_shape, seed=0 if split == "train" else 1
        )
        return ClassTable(images, device, pixel_range=self.task.pixel_range)

    def source(self, split: str, device: torch.device | str = "cpu") -> EpisodeSource | BatchSource:
        """Episodes (or, to train on, mini-batches) of a split."""
        table = self.table(split, device)
        if split == "train" and self.kind.source == "batches":
            return BatchSource(table, self.task.way * self.task.query, 0)
        return EpisodeSource(ClosedSampler(table, self.task, 0))


def both(check: Callable[[MethodSubject], str | None]) -> Callable[[MethodSubject], str | None]:
    """The check with both kinds of statistics and all shapes of images."""

    @wraps(check)
    def run(subject: MethodSubject) -> str | None:
        reason: NotClaimed | None = None
        for words, variant in subject.variants():
            try:
                check(variant)
            except NotClaimed as told:
                reason = reason or (told if not words else None)
            except Exception as error:
                if not words:
                    raise
                told_as = "" if isinstance(error, Fault) else f"it raised {type(error).__name__}: "
                raise Fault(f"{words}{told_as}{error}") from error
        if reason is not None:
            raise reason
        return None

    return run


def at_small_size(
    check: Callable[[MethodSubject], str | None],
) -> Callable[[MethodSubject], str | None]:
    """The check, which asks something of the method whatever the images, with small ones."""

    @wraps(check)
    def run(subject: MethodSubject) -> str | None:
        return check(subject.small)

    return run


def predict(method: Method, episode: Episode) -> Tensor:
    """Logits [T, Q, way], as an evaluation gets them."""
    method.eval()
    with torch.enable_grad():
        return method.predict(method.adapt(episode.support), episode.query).detach()


def tensors(tree: Any) -> list[Tensor]:
    """The tensors of a pytree."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def off(a: Tensor, b: Tensor) -> float:
    """The largest difference, as a fraction of the largest number (of 1 if they are smaller)."""
    if a.shape != b.shape:
        return float("inf")
    if not a.numel():
        return 0.0
    scale = float(torch.maximum(a.abs().max(), b.abs().max()).clamp_min(1))
    return float((a.double() - b.double()).abs().max()) / scale


def require_close(a: Tensor, b: Tensor, tolerance: float, told: str) -> None:
    """Raise :class:`Fault` with the difference if it is above the tolerance.

    Arguments:
        told: what it means and what to do; a sentence.
    """
    difference = off(a, b)
    if not difference <= tolerance:
        raise Fault(f"off by {difference:.3g} (at most {tolerance:.0e} is allowed): {told}")
