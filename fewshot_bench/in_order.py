"""A plan of test tasks that leaves nothing to chance: classes and images as they are stored."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot_bench.data.table import ClassTable
from fewshot_bench.episode import Task
from fewshot_bench.errors import ConfigError
from fewshot_bench.random import fold
from fewshot_bench.sampling import Indices, Sampler


class InOrderSampler(Sampler):
    """Disjoint tasks of consecutive classes: each class is in one task, and no image comes twice.

    Task e has the classes from e * way on; the first images of each are its support set, the next
    its queries. Consecutive classes are mostly of one family (characters of one alphabet), so these
    tasks are harder than random ones. Of a group's classes (the turns of a character) it takes the
    first. Notebooks and tutorials that cut a test set into tasks do this.
    """

    sampling = "open"

    def __init__(
        self, table: ClassTable, task: Task, seed: int, *, within_family: bool = False
    ) -> None:
        if within_family:
            raise ConfigError("--sampling in-order takes classes as they come: no --within-family.")
        super().__init__(table, task, seed)
        self.length = len(table.group_start) // task.classes

    def __call__(self, ids: Tensor) -> Indices:
        table, task = self.table, self.task
        assert self.length is not None
        if len(ids) and int(ids.max()) >= self.length:
            raise ConfigError(
                f"in order, this split has {self.length} tasks; give --episodes {self.length} or "
                "fewer, or --sampling closed."
            )
        groups = ids.unsqueeze(1) * task.classes + torch.arange(task.classes, device=ids.device)
        classes = table.group_start[groups]
        first = torch.arange(task.images_per_class, device=ids.device)
        images = table.class_start[classes].unsqueeze(-1) + first
        return self.arrange(fold(self.stream, ids), classes, images)
