"""A plan of test tasks that leaves nothing to chance: classes and images as they are read."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot_bench.data.table import ClassTable
from fewshot_bench.episode import Task
from fewshot_bench.errors import ConfigError
from fewshot_bench.sampling.base import OpenSampler


class InOrderSampler(OpenSampler):
    """Disjoint tasks in the order in which a pipeline that groups by class would deliver them.

    Images are read in the order of their source (``ClassTable.order``). A class is complete when
    the last of its images has been read; task e has the classes that are the e * way-th and
    following to be complete, the images of each that were read first are its support set, the
    next ones its queries. Of a group's classes (the turns of a character) it takes the first.
    Notebooks and tutorials that cut a test set into tasks do this. Where the source stores its
    images class after class, neighbors are mostly of one family (characters of one alphabet), and
    such tasks are harder than random ones.
    """

    def __init__(
        self, table: ClassTable, task: Task, seed: int, *, within_family: bool = False
    ) -> None:
        if within_family:
            raise ConfigError("--sampling in-order takes classes as they come: no --within-family.")
        super().__init__(table, task, seed)

    def _plan(self) -> tuple[Tensor, Tensor]:
        """Classes [E, classes] and images [E, classes, shot + query + unlabeled]."""
        table, task = self.table, self.task
        classes = table.group_start.cpu()
        read = []
        for start, count in zip(
            table.class_start.cpu()[classes].tolist(),
            table.class_count.cpu()[classes].tolist(),
            strict=True,
        ):
            read.append(start + table.order[start : start + count].argsort(stable=True))
        last = torch.stack([table.order[images[-1]] for images in read])
        chosen = last.argsort(stable=True)
        chosen = chosen[: len(chosen) // task.classes * task.classes]
        images = torch.stack([read[group][: task.images_per_class] for group in chosen.tolist()])
        shape = (-1, task.classes)
        plan = classes[chosen].unflatten(0, shape), images.unflatten(0, shape)
        return plan[0].to(table.device), plan[1].to(table.device)
