"""Labeled mini-batches over all classes of a split, for methods that are pretrained.

A method with ``source = "batches"`` trains on these instead of episodes, and is evaluated on
episodes. Mini-batch i is a pure function of the split, the seed and i.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot_bench.data.table import ClassTable
from fewshot_bench.episode import Batch, Episode, Support
from fewshot_bench.rng import below, fold, key_of
from fewshot_bench.sampling.base import episode_ids


@dataclass(frozen=True)
class ImagePositions(Batch):
    """Positions of images in a class table [T, size], and keys [T]."""

    image: Tensor
    key: Tensor


class BatchSource:
    """Mini-batches in the form of episodes with an empty support set (shot 0).

    The T "tasks" of a batch are T mini-batches: ``query`` [T, size, C, H, W], ``target`` [T, size]
    in [0, classes of the split), ``class_ids`` [T, classes]. Images are drawn uniformly, with
    replacement, from the positions ``labeled`` (None: all). ``size``: images of a mini-batch.
    """

    def __init__(
        self, table: ClassTable, size: int, seed: int, dtype: torch.dtype = torch.float32,
        labeled: Tensor | None = None,
    ) -> None:  # fmt: skip
        self.table, self.size, self.dtype, self.labeled = table, size, dtype, labeled
        self.stream = torch.tensor(key_of("batches", seed), device=table.device)

    def batch(self, ids: Tensor | range) -> Episode:
        """The mini-batches with these numbers."""
        return self.deliver(self.indices(ids))

    def indices(self, ids: Tensor | range) -> ImagePositions:
        """Positions of the images of these mini-batches."""
        key = fold(self.stream, episode_ids(ids, self.table.device))
        pool = self.table.images if self.labeled is None else self.labeled
        image = below(key, "images", len(pool), (self.size,))
        return ImagePositions(image if self.labeled is None else self.labeled[image], key)

    def deliver(self, indices: ImagePositions) -> Episode:
        """The mini-batches of these images."""
        table, image, key = self.table, indices.image, indices.key
        classes = torch.arange(len(table.class_start), device=table.device)
        query = table.gather(image, self.dtype)
        nothing = query.new_empty(len(key), len(classes), 0, *query.shape[2:])
        target = torch.searchsorted(table.class_start, image, right=True) - 1
        support = Support(nothing, None, key)
        return Episode(support, query, target, classes.expand(len(key), -1), key)
