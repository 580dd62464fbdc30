"""Tasks, images and networks that checks run on."""

import torch
from torch import Tensor, nn

from fewshot_bench.data.images import LabeledImages
from fewshot_bench.episode import Episode, Support, Task
from fewshot_bench.nn import Conv2d, TaskBatchNorm
from fewshot_bench.nn.norm import Statistics
from fewshot_bench.rng import fold, key_of, normal, permutation, uniform

TINY = Task(way=3, shot=2, query=2, image_shape=(1, 6, 6))


class TinyBackbone(nn.Module):
    """A smooth backbone of two convolutions: [N, C, H, W] -> [N, channels, h, w].

    It has no ReLU and no max-pooling: finite differences across a kink are not a derivative.
    ``statistics``: see :class:`fewshot_bench.nn.TaskBatchNorm`.
    """

    def __init__(
        self, image_shape: tuple[int, int, int] = TINY.image_shape, *, channels: int = 3,
        statistics: Statistics = "batch",
    ) -> None:  # fmt: skip
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
    way: int = TINY.way, shot: int = TINY.shot, query: int = TINY.query, tasks: int = 2,
    image_shape: tuple[int, int, int] = TINY.image_shape, unlabeled: int = 0, *,
    distractors: int = 0, seed: int = 0, dtype: torch.dtype = torch.float64,
) -> Episode:  # fmt: skip
    """A batch of random tasks: a class is a random pattern, its images are the pattern plus noise.

    Arguments as in :class:`fewshot_bench.episode.Task`; ``tasks``: T.
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

    others = images("unlabeled", task.classes, unlabeled).flatten(1, 2)
    rest = shuffled("unlabeled order", others) if unlabeled else None
    return Episode(
        Support(images("support", way, shot), rest, key),
        shuffled("query order", images("query", way, query).flatten(1, 2)),
        shuffled("query order", torch.arange(way).repeat_interleave(query).expand(tasks, -1)),
        torch.arange(tasks * way).unflatten(0, (tasks, way)), key,
    )  # fmt: skip


def separable_images(
    classes: int = 12, each: int = 12, image_shape: tuple[int, int, int] = TINY.image_shape, *,
    seed: int = 0,
) -> LabeledImages:  # fmt: skip
    """Images that any method should separate: a random pattern per class, plus weak noise.

    ``each``: images per class; ``seed``: of the patterns.
    """
    key = torch.tensor(key_of("separable_images", seed))
    patterns = normal(key, "patterns", (classes, 1, *image_shape)).sign() * 80
    noise = normal(key, "noise", (classes, each, *image_shape)) * 20
    images = (128 + patterns + noise).clamp(0, 255).to(torch.uint8).flatten(0, 1)
    names = tuple(f"seed {seed}, class {i}" for i in range(classes))
    return LabeledImages(images.numpy(), torch.full((classes,), each).numpy(), names)


class CharacterBackbone(nn.Module):
    """The layers that are common in backbones: convolution, normalization, max-pooling, ReLU."""

    def __init__(self, image_shape: tuple[int, int, int], channels: int = 8) -> None:
        super().__init__()
        inputs, height, width = image_shape
        self.blocks = nn.Sequential()
        for size in (inputs, channels):
            self.blocks.extend([Conv2d(size, channels, 3, padding=1), TaskBatchNorm(channels)])
            self.blocks.extend([nn.MaxPool2d(2), nn.ReLU()])
        self.out_shape = (channels, height // 4, width // 4)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        # Strides of channels-last, for a single channel too.
        return self.blocks(x.contiguous().view(n, c, h * w).mT.contiguous().mT.view(n, c, h, w))


def character_images(key: Tensor, tag: str, count: int, shape: tuple[int, int, int]) -> Tensor:
    """Black squares on a mostly white background, like scanned characters: [T, count, *shape]."""
    channels, height, width = shape
    coarse = uniform(key, tag, (count, 1, -(-height // 4), -(-width // 4))) < 0.2
    fine = coarse.repeat_interleave(4, -2).repeat_interleave(4, -1)[..., :height, :width]
    return fine.to(torch.float32).expand(-1, -1, channels, -1, -1).contiguous()


def character_episode(task: Task, seed: int, labeled: bool, tasks: int = 2) -> Episode:
    """Tasks of :func:`character_images`; classes have nothing in common, only gradients matter.

    ``labeled``: with support sets (those of mini-batches are empty).
    """
    key = fold(torch.arange(tasks), key_of("precision", seed))

    def images(tag: str, count: int) -> Tensor:
        return character_images(key, tag, count, task.image_shape)

    shot = task.shot if labeled else 0
    labels = torch.arange(task.way).repeat_interleave(task.query)
    others = task.unlabeled * task.classes
    support = images("support", task.way * shot).unflatten(1, (task.way, shot))
    unlabeled = images("unlabeled", others) if labeled and others else None
    target = labels[permutation(key, "order", len(labels))]
    class_ids = torch.arange(tasks * task.way).unflatten(0, (tasks, task.way))
    query = images("query", len(labels))
    return Episode(Support(support, unlabeled, key), query, target, class_ids, key)
