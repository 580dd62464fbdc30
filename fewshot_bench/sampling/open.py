"""Finite plans of episodes in which no image is used twice, so that intervals cover new images."""

import torch
from torch import Tensor

from fewshot_bench.data.table import ClassTable
from fewshot_bench.episode import Task
from fewshot_bench.errors import ConfigError
from fewshot_bench.rng import below, fold, permutation
from fewshot_bench.sampling.base import Indices, Sampler


class OpenSampler(Sampler):
    """Random classes among those with enough unused images (Lafargue et al., TMLR 2024).

    The plan ends when fewer than ``way`` classes have shot + query + unlabeled unused images.
    Classes with many images are in more episodes than others (``test.class_use`` of the record).
    The classes of a group show the same drawings (rotations), each used in one rotation only.
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
        # Indices drawn ahead of their use may exceed the plan; on a GPU that would end the process.
        place = ids.clamp(max=self.length - 1)
        classes, images = (part[place] for part in self.plan)
        return self.arrange(fold(self.stream, ids), classes, images)

    def limit(self, room: Tensor, families: list[Tensor]) -> Tensor:
        """The number of episodes that each group may be in, [groups]: those it has images for.

        ``families``: the groups of each family that has enough for an episode.
        """
        return room

    def pick(self, key: Tensor, groups: Tensor, used: Tensor) -> Tensor:
        """The groups of an episode, of those that may be in it (one family ``within_family``).

        ``used``: the number of episodes that each of them was in.
        """
        return groups[permutation(key, "classes", len(groups))[: self.task.classes]]

    def _plan(self) -> tuple[Tensor, Tensor]:
        """Classes [E, classes] and images [E, classes, shot + query + unlabeled]."""
        table, task, each = self.table, self.task, self.task.images_per_class
        start, count, stream = table.group_start.cpu(), table.group_count.cpu(), self.stream.cpu()
        class_start, class_count = table.class_start.cpu(), table.class_count.cpu()
        stock = torch.stack([part.min() for part in class_count.split(count.tolist())])
        deck = [permutation(fold(stream, g), "deck", int(n)) for g, n in enumerate(stock)]
        families = table.family_count.cpu().tolist() if self.within_family else [len(stock)]
        of_family = [g for g in torch.arange(len(stock)).split(families) if len(g) >= task.classes]
        used, limit = torch.zeros_like(stock), self.limit(stock // each, of_family)
        classes: list[Tensor] = []
        images: list[Tensor] = []
        while True:
            free = [g[used[g] < limit[g]] for g in of_family]
            left = [g for g in free if len(g) >= task.classes]
            if not left:
                return torch.stack(classes).to(table.device), torch.stack(images).to(table.device)
            key = fold(stream, len(classes))
            eligible = left[int(below(key, "family", len(left)))]
            groups = self.pick(key, eligible, used[eligible])
            chosen = start[groups] + below(key, "variant", count[groups], (task.classes,))
            rows = [deck[g][used[g] * each :][:each] for g in groups.tolist()]
            used[groups] += 1
            classes.append(chosen)
            images.append(torch.stack(rows) + class_start[chosen].unsqueeze(-1))


class BalancedOpenSampler(OpenSampler):
    """A plan that uses every class equally often, however many images it has.

    A class is in as many episodes as the smallest one can be: an episode takes the least used
    classes, at random among equals. Any two classes (of a family, with ``within_family``) differ
    by at most one episode at every point of the plan, and large classes leave images unused.
    """

    def limit(self, room: Tensor, families: list[Tensor]) -> Tensor:
        return room[torch.cat(families)].min().expand_as(room)

    def pick(self, key: Tensor, groups: Tensor, used: Tensor) -> Tensor:
        order = permutation(key, "classes", len(groups))
        chosen = groups[order[used[order].argsort(stable=True)[: self.task.classes]]]
        # The least used come first; shuffled again, places carry no information.
        return chosen[permutation(key, "places", len(chosen))]


class InOrderSampler(OpenSampler):
    """Disjoint episodes in the order in which a pipeline that groups by class delivers them.

    Images are read in the order of their source (``ClassTable.order``). A class is complete when
    its last image has been read. Episode e has the classes e * way, e * way + 1, ... in the order
    of completion; the images that were read first are the support set, the next ones the queries.
    Of a group (the rotations of a character) the first class is used. Tutorials that cut a test
    set into episodes do this. Where the source stores images class by class, neighbors mostly
    belong to one family (an alphabet), which makes such episodes harder than random ones.
    """

    def __init__(
        self, table: ClassTable, task: Task, seed: int, *, within_family: bool = False
    ) -> None:
        if within_family:
            raise ConfigError("--sampling in-order cannot be combined with --within-family.")
        super().__init__(table, task, seed)

    def _plan(self) -> tuple[Tensor, Tensor]:
        table, task = self.table, self.task
        classes = table.group_start.cpu()
        starts, counts = table.class_start.cpu()[classes], table.class_count.cpu()[classes]
        read = [
            start + table.order[start : start + count].argsort(stable=True)
            for start, count in zip(starts.tolist(), counts.tolist(), strict=True)
        ]
        chosen = torch.stack([table.order[images[-1]] for images in read]).argsort(stable=True)
        chosen = chosen[: len(chosen) // task.classes * task.classes]
        images = torch.stack([read[group][: task.images_per_class] for group in chosen.tolist()])
        shape = (-1, task.classes)
        plan = classes[chosen].unflatten(0, shape), images.unflatten(0, shape)
        return plan[0].to(table.device), plan[1].to(table.device)
