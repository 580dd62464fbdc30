"""Independent episodes: later episodes may use an image again."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot_bench.rng import below, fold, subset
from fewshot_bench.sampling.base import Indices, Sampler


class ClosedSampler(Sampler):
    """Classes uniform without replacement, then images of each class likewise."""

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
