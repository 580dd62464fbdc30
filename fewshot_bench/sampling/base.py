"""The contract of samplers: episode i is a pure function of (content, split, task, seed, i).

Nothing depends on the method, the device, the batch size or the number of processes.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fewshot_bench.data.table import ClassTable
from fewshot_bench.episode import Batch, Episode, Support, Task
from fewshot_bench.errors import ConfigError, PluginError
from fewshot_bench.rng import below, fold, key_of, permutation, subset
from fewshot_bench.utils.devices import is_gpu
from fewshot_bench.utils.generators import generators_used, global_generators


@dataclass(frozen=True)
class Indices(Batch):
    """Positions in a class table of the images of T episodes.

    ``support`` [T, way, shot], ``query`` [T, Q] with ``target`` [T, Q] in [0, way), ``unlabeled``
    [T, U] or None, ``class_ids`` [T, way], ``key`` [T].
    """

    support: Tensor
    query: Tensor
    target: Tensor
    unlabeled: Tensor | None
    class_ids: Tensor
    key: Tensor

    def rows(self) -> Tensor:
        """Everything that defines an episode, as one row of integers: [T, L]."""
        return self._joined(self.class_ids, self.support, self.query, self.target)

    def images(self) -> Tensor:
        """All image indices: [T, way*shot + Q + U]."""
        return self._joined(self.support, self.query)

    def _joined(self, *parts: Tensor) -> Tensor:
        parts = parts if self.unlabeled is None else (*parts, self.unlabeled)
        return torch.cat([part.flatten(1) for part in parts], dim=1)


class Sampler:
    """Base class of samplers.

    Arguments:
        table: the split; ConfigError if it has too few classes or images.
        task: the shape of an episode.
        seed: of the stream of episodes.
        within_family: draw all classes of an episode from one family (one alphabet).

    Attributes:
        length: number of episodes; None: unlimited.
        sampling: ``"closed"`` (later episodes may use an image again) or ``"open"`` (they do not).
    """

    length: int | None = None
    sampling = "closed"

    def __init__(
        self, table: ClassTable, task: Task, seed: int, *, within_family: bool = False
    ) -> None:
        self.table, self.task, self.within_family = table, task, within_family
        table.require(task.classes, task.images_per_class)
        # Families with enough classes; computed once, since it waits for the device.
        self.eligible = (table.family_count >= task.classes).nonzero().squeeze(1)
        if within_family and not len(self.eligible):
            raise ConfigError(
                f"--within-family: no family has {task.classes} classes; the largest has "
                f"{int(table.family_count.max())}. Use a smaller --way."
            )
        self.stream = torch.tensor(key_of("episodes", seed), device=table.device)

    def __call__(self, ids: Tensor) -> Indices:
        """Indices of the episodes with these numbers (int64 [T], on the table's device)."""
        raise NotImplementedError

    def require(self, ids: Tensor | range) -> None:
        """Raise ConfigError if the plan has fewer episodes.

        Numbers on a GPU are not checked: to read them would wait for the device.
        """
        if self.length is None or not len(ids) or (isinstance(ids, Tensor) and is_gpu(ids)):
            return
        last = max(ids[0], ids[-1]) if isinstance(ids, range) else int(ids.max())
        if last >= self.length:
            raise ConfigError(
                f"the open plan of this split and task has {self.length} episodes; use "
                f"--episodes {self.length} or fewer, or --sampling closed."
            )

    def arrange(self, key: Tensor, classes: Tensor, images: Tensor) -> Indices:
        """Split images [T, classes, shot + query + unlabeled] into the parts of an episode.

        Queries and unlabeled images are in random order, which carries no class information.
        """
        task = self.task
        support, rest = images.split([task.shot, task.query + task.unlabeled], dim=-1)
        query = rest[:, : task.way, : task.query].flatten(1)
        order = permutation(key, "query order", query.shape[1])
        target = torch.arange(task.way, device=key.device).repeat_interleave(task.query)
        unlabeled = None
        if task.unlabeled:
            # Tags of random numbers keep their spelling: it decides the numbers.
            shuffle = permutation(key, "unlabelled order", task.classes * task.unlabeled)
            unlabeled = rest[..., task.query :].flatten(1).gather(1, shuffle)
        query, target = query.gather(1, order), target.expand(len(key), -1).gather(1, order)
        support, class_ids = support[:, : task.way], classes[:, : task.way]
        return Indices(support, query, target, unlabeled, class_ids, key)


class ClosedSampler(Sampler):
    """Independent episodes: classes uniform without replacement, then images of each likewise."""

    def __call__(self, ids: Tensor) -> Indices:
        table, task = self.table, self.task
        key = fold(self.stream, ids)
        groups = self._groups(key)
        variant = below(key, "variant", table.group_count[groups], (task.classes,))
        classes = table.group_start[groups] + variant
        class_key = fold(key.unsqueeze(-1), torch.arange(task.classes, device=key.device))
        return self.arrange(key, classes, self.images(class_key, classes))

    def images(self, key: Tensor, classes: Tensor) -> Tensor:
        """Distinct images [T, classes, shot + query + unlabeled] of classes [T, classes]."""
        table = self.table
        place = subset(key, "images", table.class_count[classes], self.task.images_per_class)
        return place + table.class_start[classes].unsqueeze(-1)

    def _groups(self, key: Tensor) -> Tensor:
        """Distinct groups [T, classes], of one family with ``within_family``."""
        table, task = self.table, self.task
        if not self.within_family:
            size = torch.full_like(key, len(table.group_start))
            return subset(key, "classes", size, task.classes)
        family = self.eligible[below(key, "family", len(self.eligible))]
        chosen = subset(key, "classes", table.family_count[family], task.classes)
        return table.family_start[family].unsqueeze(-1) + chosen


class EpisodeSource:
    """Episodes of one split, gathered on its device; ``dtype``: of the images."""

    def __init__(self, sampler: Sampler, dtype: torch.dtype = torch.float32) -> None:
        self.sampler, self.table, self.dtype = sampler, sampler.table, dtype
        shape, pixel_range = self.table.image_shape, self.table.pixel_range
        self.task = replace(sampler.task, image_shape=shape, pixel_range=pixel_range)
        self._checked = False

    def indices(self, ids: Tensor | range) -> Indices:
        """Image indices of these episodes. ConfigError if a finite plan has fewer.

        PluginError if the sampler draws from a global generator, or its first batch is invalid.
        """
        self.sampler.require(ids)
        before = global_generators()
        indices = self.sampler(episode_ids(ids, self.table.device))
        if used := generators_used(before, global_generators()):
            raise PluginError(
                f"sampler {type(self.sampler).__name__} draws from {used[0]}, so its episodes "
                "would differ next time; draw from fewshot_bench.rng, keyed by the seed and the "
                "episode's number."
            )
        if not self._checked:
            check_indices(indices, self.table, self.sampler.task)
            self._checked = True
        return indices

    def batch(self, ids: Tensor | range) -> Episode:
        """The episodes with these numbers, as one batch."""
        return self.deliver(self.indices(ids))

    def deliver(self, indices: Indices) -> Episode:
        """The episodes with these indices: a single gather."""
        images = self.table.gather(indices.images(), self.dtype)
        _, way, shot = indices.support.shape
        ends = [way * shot, way * shot + indices.query.shape[1]]
        shots, query, rest = images.tensor_split(ends, dim=1)
        unlabeled = None if indices.unlabeled is None else rest
        support = Support(shots.unflatten(1, (way, shot)), unlabeled, indices.key)
        return Episode(support, query, indices.target, indices.class_ids, indices.key)


def episode_ids(ids: Tensor | range, device: torch.device) -> Tensor:
    """Episode numbers as int64 [T] on a device; a range is expanded there."""
    if isinstance(ids, range):
        return torch.arange(ids.start, ids.stop, ids.step, device=device)
    return ids.to(device)


def check_indices(indices: Indices, table: ClassTable, task: Task) -> None:
    """Raise PluginError if a sampler returned invalid episodes.

    A wrong shape or target, a class or image twice in an episode, or an image of another class.
    """
    support, query, target = indices.support, indices.query, indices.target
    ids = indices.class_ids
    shapes = (tuple(support.shape), tuple(query.shape))
    expected = ((len(ids), task.way, task.shot), (len(ids), task.way * task.query))
    if shapes != expected:
        raise PluginError(f"the sampler drew support, query of {shapes}, expected {expected}")
    if ((target < 0) | (target >= task.way)).any():
        raise PluginError(f"the sampler returned targets outside [0, {task.way})")
    for what, values in (("class", ids), ("image", indices.images())):
        if (values.sort(dim=1).values.diff(dim=1) == 0).any():
            raise PluginError(f"the sampler used one {what} twice in an episode")
    for image, label in ((support, ids.unsqueeze(-1)), (query, ids.gather(1, target))):
        offset = image - table.class_start[label]
        if ((offset < 0) | (offset >= table.class_count[label])).any():
            raise PluginError("the sampler returned an image of another class than it says")
