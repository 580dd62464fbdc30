"""The parts of a few-shot task. Axis 0 of every tensor is the task (T of them in a batch).

The class is an axis of the support set (``way``), so supports carry no labels: the images at
``support.images[t, c]`` belong to class ``c`` of task ``t``; targets are indices into that axis.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fewshot_bench.errors import ConfigError


@dataclass(frozen=True)
class Task:
    """The shape of an episode; ConfigError if a count is too small.

    Arguments:
        way: number of classes (N).
        shot: labeled images per class in the support set (K).
        query: query images per class.
        unlabeled: further, unlabeled images per class.
        distractors: classes beside the ``way`` that appear among the unlabeled images only.
        image_shape: (channels, height, width).
        pixel_range: values of byte 0 and byte 255.
    """

    way: int
    shot: int
    query: int = 15
    unlabeled: int = 0
    distractors: int = 0
    image_shape: tuple[int, int, int] = (1, 28, 28)
    pixel_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        for name, least in (("way", 2), ("shot", 1), ("query", 1), ("unlabeled", 0)):
            if (value := getattr(self, name)) < least:
                raise ConfigError(f"--{name}: expected an integer >= {least}, got {value}.")
        if self.distractors < 0 or (self.distractors and not self.unlabeled):
            what = f"--distractors: expected an integer >= 0, got {self.distractors}"
            where = "distractor classes appear among unlabeled images"
            raise ConfigError(f"{what}; {where}, give --unlabeled 1 or more.")

    @property
    def images_per_class(self) -> int:
        """Number of images that an episode takes from each of its classes."""
        return self.shot + self.query + self.unlabeled

    @property
    def classes(self) -> int:
        """Number of classes of an episode, distractors included."""
        return self.way + self.distractors


@dataclass(frozen=True)
class Batch:
    """Tensors with the task as axis 0."""

    def map(self, function: Any) -> Any:
        """A copy with ``function`` applied to every tensor."""
        changed = {
            name: value.map(function) if isinstance(value, Batch) else function(value)
            for name, value in vars(self).items()
            if isinstance(value, Tensor | Batch)
        }
        return replace(self, **changed)

    def copy_(self, other: Batch) -> None:
        """Copy the values of a batch of the same shapes into the tensors of this one."""
        for name, own in vars(self).items():
            if isinstance(own, Tensor | Batch):
                own.copy_(getattr(other, name))

    def tasks(self, start: int, stop: int) -> Any:
        """The tasks start..stop-1 as a batch."""
        return self.map(lambda tensor: tensor[start:stop])

    def to(self, *target: Any) -> Any:
        """A copy on a device, or with its images in a floating-point dtype."""
        if not any(isinstance(t, torch.dtype) for t in target):
            return self.map(lambda tensor: tensor.to(*target))
        return self.map(lambda tensor: tensor.to(*target) if tensor.is_floating_point() else tensor)


@dataclass(frozen=True)
class Support(Batch):
    """What a method learns a task from.

    Arguments:
        images: [T, way, shot, C, H, W]; shot is 0 in mini-batches of labeled images.
        unlabeled: [T, U, C, H, W] in random order, or None.
        key: [T] int64; the task's key for :mod:`fewshot_bench.rng`.
    """

    images: Tensor
    unlabeled: Tensor | None
    key: Tensor

    def labeled(self) -> tuple[Tensor, Tensor]:
        """The support set as a plain batch: images [T, way*shot, C, H, W] and labels [way*shot]."""
        way, shot = self.images.shape[1:3]
        labels = torch.arange(way, device=self.images.device).repeat_interleave(shot)
        return self.images.flatten(1, 2), labels


@dataclass(frozen=True)
class Episode(Batch):
    """A batch of T tasks.

    Arguments:
        support: see :class:`Support`.
        query: [T, Q, C, H, W] with Q = way * query; the order carries no class information.
        target: [T, Q] in [0, way).
        class_ids: [T, way] classes of the split that the task drew.
        key: [T] int64.
    """

    support: Support
    query: Tensor
    target: Tensor
    class_ids: Tensor
    key: Tensor

    def __len__(self) -> int:
        return self.query.shape[0]


@dataclass(frozen=True)
class UnlabeledSupport(Batch):
    """The support images of tasks without labels.

    Arguments:
        images: [T, M, C, H, W] in random order: way * shot and the task's unlabeled images.
        key: [T] int64.
    """

    images: Tensor
    key: Tensor


@dataclass(frozen=True)
class UnlabeledEpisode(Batch):
    """A batch of T tasks without labels; see :class:`Episode`."""

    support: UnlabeledSupport
    query: Tensor
    class_ids: Tensor
    key: Tensor

    def __len__(self) -> int:
        return self.query.shape[0]
