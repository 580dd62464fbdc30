"""Training with few labels: which images and classes of a split are labeled, and tasks of each.

Two levels (Zhang et al. 2018, section 3; Ren et al. 2018, section 5):

* samples: a seeded fraction of the images of every training class is labeled. Support and query
  images come from it, unlabeled images from the rest, in every episode.
* tasks: a seeded fraction of the classes is labeled. Labeled tasks use these classes, unlabeled
  tasks the others, for methods that can learn from them.

The partition depends on the split's classes and its own seed only. Tags of random numbers
("unlabelled ...") keep their spelling.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot_bench.data.table import ClassTable
from fewshot_bench.episode import Episode, Task, UnlabeledEpisode, UnlabeledSupport
from fewshot_bench.errors import ConfigError
from fewshot_bench.rng import fold, key_of, permutation, subset
from fewshot_bench.sampling.base import ClosedSampler, EpisodeSource, Indices


@dataclass(frozen=True)
class Labels:
    """How much of a training split is labeled; ConfigError for a fraction outside (0, 1].

    ``fraction``: of the images of each class; ``classes``: of the classes; ``seed``: of both.
    """

    fraction: float = 1.0
    classes: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for flag, value in (("fraction", self.fraction), ("classes", self.classes)):
            if not 0 < value <= 1:
                raise ConfigError(f"--labeled-{flag}: expected 0 < value <= 1, got {value:g}.")

    def key(self, level: str, device: torch.device) -> Tensor:
        return torch.tensor(key_of("labels", level, self.seed), device=device)

    def groups(self, table: ClassTable) -> tuple[Tensor, Tensor]:
        """Labeled and unlabeled groups, sorted; a character and its rotations are one group."""
        count = len(table.group_start)
        order = permutation(self.key("classes", table.device), "groups", count)
        labeled = at_least_one(self.classes, torch.tensor(count))
        return order[:labeled].sort().values, order[labeled:].sort().values

    def images(self, table: ClassTable) -> Tensor:
        """Positions [M] of the images of each class, the labeled ones first.

        The classes of a group show the same drawings and have the same order.
        """
        group = torch.repeat_interleave(table.group_count)
        keys = fold(self.key("images", table.device), group)
        order = torch.arange(len(table.images), device=table.device)
        for count in table.class_count.unique().tolist():
            of_size = table.class_count == count
            start = table.class_start[of_size].unsqueeze(-1)
            place = start + torch.arange(count, device=table.device)
            order[place] = start + permutation(keys[of_size], "images", count)
        return order


def at_least_one(fraction: float, count: Tensor) -> Tensor:
    """That fraction of a count, rounded, and at least 1."""
    return (fraction * count + 0.5).floor().long().clamp_min(1)


class PartlyLabeledSampler(ClosedSampler):
    """Closed episodes: support and queries are labeled images, ``unlabeled`` the other images.

    ``fraction``: of the images of each class that is labeled; ``order``: :meth:`Labels.images` of
    the whole split. ConfigError if a class has too few labeled or unlabeled images.
    """

    def __init__(
        self, table: ClassTable, task: Task, seed: int, *, fraction: float, order: Tensor,
        within_family: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(table, task, seed, within_family=within_family)
        self.order, self.labeled = order, at_least_one(fraction, table.class_count)
        wanted = task.shot + task.query
        for what, has, takes, hint in (
            ("labeled", self.labeled, wanted, "raise it, or lower --train-shot or --train-query"),
            ("unlabeled", table.class_count - self.labeled, task.unlabeled,
             "lower it, or --train-unlabeled"),
        ):  # fmt: skip
            if int(has.min()) < takes:
                raise ConfigError(
                    f"--labeled-fraction {fraction:g} leaves {int(has.min())} {what} images "
                    f"of class '{table.class_names[int(has.argmin())]}', but a training episode "
                    f"takes {takes} of a class; {hint}."
                )

    def images(self, key: Tensor, classes: Tensor) -> Tensor:
        task, count = self.task, self.labeled[classes]
        place = subset(key, "images", count, task.shot + task.query)
        if task.unlabeled:
            rest = self.table.class_count[classes] - count
            others = subset(key, "unlabelled images", rest, task.unlabeled)
            place = torch.cat([place, others + count.unsqueeze(-1)], dim=-1)
        return self.order[place + self.table.class_start[classes].unsqueeze(-1)]


class UnlabeledTasks(EpisodeSource):
    """Episodes of which nothing is known but that each is a task; see :func:`without_labels`."""

    def deliver(self, indices: Indices) -> UnlabeledEpisode:  # type: ignore[override]
        """The tasks of these indices, without labels."""
        return without_labels(super().deliver(indices))


def without_labels(episode: Episode) -> UnlabeledEpisode:
    """The same tasks without labels: support and unlabeled images together, in random order."""
    images, _ = episode.support.labeled()
    if episode.support.unlabeled is not None:
        images = torch.cat([images, episode.support.unlabeled], dim=1)
    order = permutation(episode.key, "unlabelled task", images.shape[1])
    shuffled = images[torch.arange(len(order), device=order.device).unsqueeze(-1), order]
    support = UnlabeledSupport(shuffled, episode.support.key)
    return UnlabeledEpisode(support, episode.query, episode.class_ids, episode.key)


def training_sources(
    table: ClassTable, task: Task, seed: int, labels: Labels, *,
    unlabeled: bool = True, within_family: bool = False,
) -> tuple[EpisodeSource, EpisodeSource | None]:  # fmt: skip
    """Labeled training tasks and, where some classes have no labels, unlabeled ones.

    ``unlabeled``: whether the method learns from tasks without labels; other arguments: see
    ``Sampler``. ConfigError for too few labeled or unlabeled classes, or images in one.
    """
    of_labeled, others = labels.groups(table)
    part = table if labels.classes == 1 else table.select_groups(of_labeled)
    part.require(task.classes, task.images_per_class, "labeled part of the train split", "--train-")
    sampler = ClosedSampler(part, task, seed, within_family=within_family)
    if labels.fraction < 1:
        sampler = PartlyLabeledSampler(
            part, task, seed, within_family=within_family,
            fraction=labels.fraction, order=labels.images(table),
        )  # fmt: skip
    if not unlabeled or labels.classes == 1:
        return EpisodeSource(sampler), None
    if len(others) < task.classes:
        raise ConfigError(
            f"--labeled-classes {labels.classes:g} leaves {len(others)} training classes without "
            f"labels that can be in one episode, but an unlabeled task takes {task.classes}; "
            "lower it, or --train-way."
        )
    rest = ClosedSampler(
        table.select_groups(others), task, key_of("unlabelled", seed), within_family=within_family
    )
    return EpisodeSource(sampler), UnlabeledTasks(rest)


def labeled_images(table: ClassTable, labels: Labels) -> Tensor:
    """Positions of all labeled images of labeled classes, sorted: int64."""
    order, count = labels.images(table), at_least_one(labels.fraction, table.class_count)
    of_class = torch.repeat_interleave(table.class_count)
    rank = torch.arange(len(order), device=order.device) - table.class_start[of_class]
    group = torch.repeat_interleave(table.group_count)[of_class]
    chosen = torch.isin(group, labels.groups(table)[0]) & (rank < count[of_class])
    return order[chosen].sort().values
