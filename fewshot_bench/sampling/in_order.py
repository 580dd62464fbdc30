"""A plan of test episodes without randomness: classes and images in the order of their source."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot_bench.data.table import ClassTable
from fewshot_bench.episode import Task
from fewshot_bench.errors import ConfigError
from fewshot_bench.sampling.open import OpenSampler


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
