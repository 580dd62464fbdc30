"""Tiny tasks, images and a tiny network: what a method is checked on.

The tiny network is smooth (no ReLU, no max-pooling), because finite differences across a kink are
no derivative.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewshot_bench.data.images import LabeledImages
from fewshot_bench.episode import Episode, Support, Task
from fewshot_bench.nn import TaskBatchNorm
from fewshot_bench.nn.norm import Statistics
from fewshot_bench.rng import fold, key_of, normal, permutation

TINY = Task(way=3, shot=2, query=2, image_shape=(1, 6, 6))


class TinyBackbone(nn.Module):
    """A smooth backbone of two convolutions: [N, C, H, W] -> [N, channels, h, w].

    Arguments:
        image_shape: (C, H, W).
        channels: feature maps of both layers.
        statistics: see :class:`fewshot_bench.nn.TaskBatchNorm`.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int] = TINY.image_shape,
        *,
        channels: int = 3,
        statistics: Statistics = "batch",
    ) -> None:
        super().__init__()
        inputs, height, width = image_shape
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, channels, 3, stride=2, padding=1),
            TaskBatchNorm(channels, statistics),
            nn.Softplus(),
            nn.Conv2d(channels, channels, 3, padding=1),
            TaskBatchNorm(channels, statistics),
            nn.Tanh(),
        )
        self.out_shape = (channels, (height + 1) // 2, (width + 1) // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def tiny_episode(
    way: int = TINY.way,
    shot: int = TINY.shot,
    query: int = TINY.query,
    tasks: int = 2,
    image_shape: tuple[int, int, int] = TINY.image_shape,
    unlabeled: int = 0,
    *,
    distractors: int = 0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Episode:
    """A batch of random tasks: each class is a random pattern, its images that plus noise.

    Arguments:
        way, shot, query, unlabeled, distractors: see :class:`fewshot_bench.episode.Task`.
        tasks: T.
        image_shape: (C, H, W).
        seed: another one, other images.
        dtype: of the images.
    """
    task = Task(way, shot, query, unlabeled, distractors, image_shape)
    key = fold(torch.arange(tasks), key_of("tiny_episode", seed))
    patterns = normal(key, "patterns", (task.classes, 1, *image_shape), dtype)

    def images(tag: str, classes: int, each: int) -> Tensor:
        noise = normal(key, tag, (classes, each, *image_shape), dtype)
        return patterns[:, :classes] + 0.5 * noise

    def shuffled(tag: str, values: Tensor) -> Tensor:
        order = permutation(key, tag, values.shape[1])
        return torch.stack([row[index] for row, index in zip(values, order, strict=True)])

    labels = torch.arange(way).repeat_interleave(query).expand(tasks, -1)
    others = images("unlabeled", task.classes, unlabeled).flatten(1, 2)
    return Episode(
        support=Support(
            images("support", way, shot),
            shuffled("unlabeled order", others) if unlabeled else None,
            key,
        ),
        query=shuffled("query order", images("query", way, query).flatten(1, 2)),
        target=shuffled("query order", labels),
        class_ids=torch.arange(tasks * way).unflatten(0, (tasks, way)),
        key=key,
    )


def separable_images(
    classes: int = 12,
    each: int = 12,
    image_shape: tuple[int, int, int] = TINY.image_shape,
    *,
    seed: int = 0,
) -> LabeledImages:
    """Images that any method should tell apart: a random pattern for each class, and faint noise.

    Arguments:
        classes: how many.
        each: images of a class.
        image_shape: (C, H, W).
        seed: another one, other patterns.
    """
    key = torch.tensor(key_of("separable_images", seed))
    patterns = normal(key, "patterns", (classes, 1, *image_shape)).sign() * 80
    noise = normal(key, "noise", (classes, each, *image_shape)) * 20
    images = (128 + patterns + noise).clamp(0, 255).to(torch.uint8).flatten(0, 1)
    counts = torch.full((classes,), each)
    names = tuple(f"seed {seed}, class {i}" for i in range(classes))
    return LabeledImages(images.numpy(), counts.numpy(), names)
