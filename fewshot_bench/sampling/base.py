"""The episodic sampler: episode i is a pure function of (content, split, task, seed, i).

A sampler turns episode numbers into image indices; the core gathers the images, checks that no
image plays two parts, and takes the digest that pairs comparisons. Nothing here depends on the
method, the device, the batch size or the number of processes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fewshot_bench.data.table import ClassTable
from fewshot_bench.episode import Batch, Episode, Support, Task
from fewshot_bench.errors import ConfigError, PluginError
from fewshot_bench.rng import (
    below,
    bits,
    fold,
    global_generators,
    key_of,
    moved,
    permutation,
    subset,
)
from fewshot_bench.utils.devices import is_gpu


@dataclass(frozen=True)
class Indices(Batch):
    """Where the images of T episodes are in a class table.

    Arguments:
        support: [T, way, shot].
        query: [T, Q], with ``target`` [T, Q] in [0, way).
        unlabeled: [T, U] or None.
        class_ids: [T, way].
        key: [T].
    """

    support: Tensor
    query: Tensor
    target: Tensor
    unlabeled: Tensor | None
    class_ids: Tensor
    key: Tensor

    def rows(self) -> Tensor:
        """Everything that an episode is, as one row of integers: [T, L]."""
        parts = [self.class_ids, self.support, self.query, self.target]
        parts += [] if self.unlabeled is None else [self.unlabeled]
        return torch.cat([part.flatten(1) for part in parts], dim=1)

    def images(self) -> Tensor:
        """All image indices: [T, way*shot + Q + U]."""
        parts = [self.support.flatten(1), self.query]
        parts += [] if self.unlabeled is None else [self.unlabeled]
        return torch.cat(parts, dim=1)


class Sampler:
    """Base class of samplers.

    Arguments:
        table: the split.
        task: the shape of an episode.
        seed: of the stream of episodes.
        within_family: draw all classes of an episode from one family (one alphabet).

    Attributes:
        length: how many episodes there are; None if there is no end.
        sampling: ``"closed"`` (images may come again in later episodes) or ``"open"``.
    """

    length: int | None = None
    sampling = "closed"

    def __init__(
        self, table: ClassTable, task: Task, seed: int, *, within_family: bool = False
    ) -> None:
        self.table, self.task, self.within_family = table, task, within_family
        table.require(task.classes, task.images_per_class)
        # Families that have enough; found once, because to look waits for the device.
        self.eligible = (table.family_count >= task.classes).nonzero().squeeze(1)
        if within_family and not len(self.eligible):
            raise ConfigError(
                f"--within-family: no family has {task.classes} classes; the largest has "
                f"{int(table.family_count.max())}. Give a smaller --way."
            )
        self.stream = torch.tensor(key_of("episodes", seed), device=table.device)

    def __call__(self, ids: Tensor) -> Indices:
        """Indices of the episodes with these numbers (int64 [T], on the table's device)."""
        raise NotImplementedError

    def require(self, ids: Tensor | range) -> None:
        """Check that the plan has these episodes, where that needs no wait for a device.

        Numbers on a device are not read: who draws there asks about the range that they are of.

        Raises:
            ConfigError: it ends before.
        """
        if self.length is None or not len(ids):
            return
        if isinstance(ids, Tensor) and is_gpu(ids):
            return
        last = max(ids[0], ids[-1]) if isinstance(ids, range) else int(ids.max())
        if last >= self.length:
            raise ConfigError(
                f"the open plan of this split and task has {self.length} episodes; give "
                f"--episodes {self.length} or fewer, or --sampling closed."
            )

    def arrange(self, key: Tensor, classes: Tensor, images: Tensor) -> Indices:
        """Deal images [T, classes, shot + query + unlabeled] into the parts of an episode.

        The orders of queries and unlabeled images are random, so they tell nothing of the class.
        """
        task, tasks = self.task, len(key)
        support, rest = images.split([task.shot, task.query + task.unlabeled], dim=-1)
        query = rest[:, : task.way, : task.query].flatten(1)
        order = permutation(key, "query order", query.shape[1])
        target = torch.arange(task.way, device=key.device).repeat_interleave(task.query)
        unlabeled = None
        if task.unlabeled:
            unlabeled = rest[..., task.query :].flatten(1)
            shuffle = permutation(key, "unlabelled order", unlabeled.shape[1])
            unlabeled = unlabeled.gather(1, shuffle)
        return Indices(
            support=support[:, : task.way],
            query=query.gather(1, order),
            target=target.expand(tasks, -1).gather(1, order),
            unlabeled=unlabeled,
            class_ids=classes[:, : task.way],
            key=key,
        )


class ClosedSampler(Sampler):
    """Independent episodes: classes uniform, images uniform, re-used from episode to episode."""

    def __call__(self, ids: Tensor) -> Indices:
        table, task = self.table, self.task
        key = fold(self.stream, ids)
        groups = self._groups(key)
        variant = below(key, "variant", table.group_count[groups], (task.classes,))
        classes = table.group_start[groups] + variant
        own_key = fold(key.unsqueeze(-1), torch.arange(task.classes, device=key.device))
        return self.arrange(key, classes, self.images(own_key, classes))

    def images(self, key: Tensor, classes: Tensor) -> Tensor:
        """Different images [T, classes, shot + query + unlabeled] of classes [T, classes]."""
        table = self.table
        place = subset(key, "images", table.class_count[classes], self.task.images_per_class)
        return place + table.class_start[classes].unsqueeze(-1)

    def _groups(self, key: Tensor) -> Tensor:
        """Distinct groups [T, classes], of one family if asked."""
        table, task = self.table, self.task
        if not self.within_family:
            size = torch.full_like(key, len(table.group_start))
            return subset(key, "classes", size, task.classes)
        family = self.eligible[below(key, "family", len(self.eligible))]
        chosen = subset(key, "classes", table.family_count[family], task.classes)
        return table.family_start[family].unsqueeze(-1) + chosen


class OpenSampler(Sampler):
    """A finite plan in which no image is used twice, so that intervals cover new images.

    Classes with many images are in more episodes than others; the record's ``test.class_use`` says
    by how much; :class:`fewshot_bench.sampling.open_balanced.BalancedOpenSampler` uses all alike.

    Until too few are left, an episode takes ``way`` classes, uniformly among those that still have
    shot + query + unlabeled unused images (Lafargue et al., TMLR 2024). Classes of one group
    share their images (they are rotations of the same drawings), so a drawing is used once
    whichever way it is turned.
    """

    sampling = "open"

    def __init__(
        self, table: ClassTable, task: Task, seed: int, *, within_family: bool = False
    ) -> None:
        super().__init__(table, task, seed, within_family=within_family)
        self.plan = self._plan()
        self.length = len(self.plan[0])

    def __call__(self, ids: Tensor) -> Indices:
        assert self.length is not None
        self.require(ids)
        # On a GPU an index behind the end would end the process; indices that are drawn ahead of
        # their use go beyond it.
        place = ids.clamp(max=self.length - 1)
        classes, images = (part[place] for part in self.plan)
        return self.arrange(fold(self.stream, ids), classes, images)

    def pick(self, key: Tensor, room: Tensor, used: Tensor) -> Tensor | None:
        """The groups of the next episode, or None at the end of the plan.

        Arguments:
            key: of the episode.
            room: [groups], episodes that each group has images for.
            used: [groups], episodes that it was in.
        """
        return _choose(key, (used < room).split(self.families), self.task.classes)

    def _plan(self) -> tuple[Tensor, Tensor]:
        """Classes [E, classes] and images [E, classes, shot + query + unlabeled]."""
        table, task, each = self.table, self.task, self.task.images_per_class
        start, count = table.group_start.cpu(), table.group_count.cpu()
        stock = torch.stack(
            [table.class_count.cpu()[s : s + c].min() for s, c in _pairs(start, count)]
        )
        stream = self.stream.cpu()
        deck = [permutation(fold(stream, g), "deck", int(n)) for g, n in enumerate(stock)]
        self.families = table.family_count.cpu().tolist() if self.within_family else [len(stock)]
        used, room = torch.zeros_like(stock), stock // each  # in episodes
        classes: list[Tensor] = []
        images: list[Tensor] = []
        while True:
            key = fold(stream, len(classes))
            groups = self.pick(key, room, used)
            if groups is None:
                break
            chosen = start[groups] + below(key, "variant", count[groups], (task.classes,))
            rows = [deck[g][used[g] * each :][:each] for g in groups.tolist()]
            used[groups] += 1
            classes.append(chosen)
            images.append(torch.stack(rows) + table.class_start.cpu()[chosen].unsqueeze(-1))
        return torch.stack(classes).to(table.device), torch.stack(images).to(table.device)


def _pairs(start: Tensor, count: Tensor) -> list[tuple[int, int]]:
    return list(zip(start.tolist(), count.tolist(), strict=True))


def _choose(key: Tensor, eligible: tuple[Tensor, ...], n: int) -> Tensor | None:
    """n random groups of one random family, or None when no family has n eligible ones."""
    offset, possible = 0, []
    for family in eligible:
        if int(family.sum()) >= n:
            possible.append(family.nonzero().squeeze(1) + offset)
        offset += len(family)
    if not possible:
        return None
    groups = possible[int(below(key, "family", len(possible)))]
    return groups[bits(key, "classes", (len(groups),)).argsort(stable=True)[:n]]


class EpisodeSource:
    """Episodes of one split, gathered on its device.

    Arguments:
        sampler: which images.
        dtype: of the images that are delivered.
    """

    def __init__(self, sampler: Sampler, dtype: torch.dtype = torch.float32) -> None:
        self.sampler, self.table, self.dtype = sampler, sampler.table, dtype
        low, high = sampler.table.pixel_range
        self.task = replace(
            sampler.task, image_shape=sampler.table.image_shape, pixel_range=(low, high)
        )
        self._checked = False

    def indices(self, ids: Tensor | range) -> Indices:
        """Image indices of these episodes; the first batch of a sampler is checked.

        Raises:
            ConfigError: a finite plan has fewer.
            PluginError: the sampler gave one image two parts, or an image of another class, or
                drew from a global generator.
        """
        self.sampler.require(ids)
        before = global_generators()
        indices = self.sampler(numbers(ids, self.table.device))
        if found := moved(before, global_generators()):
            raise PluginError(
                f"sampler {type(self.sampler).__name__} draws from {found[0]}: its episodes would "
                "be others the next time; draw from fewshot_bench.rng, keyed by the seed and "
                "the episode's number."
            )
        if not self._checked:
            check_indices(indices, self.table, self.sampler.task)
            self._checked = True
        return indices

    def batch(self, ids: Tensor | range) -> Episode:
        """The episodes with these numbers, as one batch."""
        return self.deliver(self.indices(ids))

    def deliver(self, indices: Indices) -> Episode:
        """The episodes of these indices: a single gather."""
        images = self.table.gather(indices.images(), self.dtype)
        _, way, shot = indices.support.shape
        sizes = [way * shot, indices.query.shape[1]]
        support, query, unlabeled = images.tensor_split([sizes[0], sizes[0] + sizes[1]], dim=1)
        return Episode(
            support=Support(
                images=support.unflatten(1, (way, shot)),
                unlabeled=None if indices.unlabeled is None else unlabeled,
                key=indices.key,
            ),
            query=query,
            target=indices.target,
            class_ids=indices.class_ids,
            key=indices.key,
        )


def numbers(ids: Tensor | range, device: torch.device) -> Tensor:
    """Episode numbers, int64 [T], on a device; those of a range are made there."""
    if isinstance(ids, range):
        return torch.arange(ids.start, ids.stop, ids.step, device=device)
    return ids.to(device)


def check_indices(indices: Indices, table: ClassTable, task: Task) -> None:
    """Hold what a sampler returned against what an episode is.

    Raises:
        PluginError: a wrong shape, an image in two parts, or an image outside its class.
    """
    images = indices.images().sort(dim=1).values
    if (images.diff(dim=1) == 0).any():
        raise PluginError("the sampler used one image for two parts of an episode")
    tasks = len(indices.key)
    shapes = (tuple(indices.support.shape), tuple(indices.query.shape))
    expected = ((tasks, task.way, task.shot), (tasks, task.way * task.query))
    if shapes != expected:
        raise PluginError(f"the sampler returned support and query of {shapes}, not {expected}")
    query_class = indices.class_ids.gather(1, indices.target)
    for image, label in (
        (indices.support, indices.class_ids.unsqueeze(-1)),
        (indices.query, query_class),
    ):
        offset = image - table.class_start[label]
        if ((offset < 0) | (offset >= table.class_count[label])).any():
            raise PluginError("the sampler returned an image that is not of the class it names")
