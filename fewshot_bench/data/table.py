"""A split on the device: bytes, and the index ranges that samplers need."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from fewshot_bench.data.images import LabeledImages
from fewshot_bench.errors import ConfigError
from fewshot_bench.utils.devices import is_gpu

MAX_FLOAT_BYTES = 256 * 2**20  # splits that are larger as floats are converted at each gather


class ClassTable:
    """All images of a split as uint8 on the device, addressed by class, group and family.

    A group holds the classes that are never in one episode (the rotations of one character); a
    family holds groups (an alphabet). Classes are sorted by group and groups by family, so each
    level is a range of the level below, given by ``start`` and ``count``.

    Attributes:
        images: uint8 [M, C, H, W].
        class_start, class_count: int64 [classes], ranges of images.
        group_start, group_count: int64 [groups], ranges of classes.
        family_start, family_count: int64 [families], ranges of groups.
        class_names: one per class.
        order: int64 [M] on the host, each image's position in its source.
    """

    def __init__(
        self, labeled: LabeledImages, device: torch.device | str = "cpu",
        pixel_range: tuple[float, float] = (0.0, 1.0),
    ) -> None:  # fmt: skip
        self.device = torch.device(device)
        self.pixel_range = pixel_range
        self.class_names = labeled.class_names
        self.order = torch.from_numpy(np.array(labeled.order))
        # A copy: the host array may be a read-only memory map.
        self.images = torch.from_numpy(np.array(labeled.images)).to(self.device)
        self._floats: list[Tensor] = []  # at most one; shared by select_groups
        self.class_start, self.class_count = self._ranges(labeled.counts)
        _, first, group_count = np.unique(labeled.groups, return_index=True, return_counts=True)
        self.group_start, self.group_count = self._ranges(group_count)
        self.family_start, self.family_count = self._ranges(
            np.unique(labeled.families[first], return_counts=True)[1]
        )

    def _ranges(self, counts: np.ndarray) -> tuple[Tensor, Tensor]:
        count = torch.as_tensor(np.ascontiguousarray(counts), dtype=torch.int64)
        return (count.cumsum(0) - count).to(self.device), count.to(self.device)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def select_groups(self, groups: Tensor) -> ClassTable:
        """A table of some groups (sorted), with the same images and classes numbered from 0."""
        part = copy.copy(self)
        start, count = self.group_start[groups], self.group_count[groups]
        part.group_count, part.group_start = count, count.cumsum(0) - count
        shift = torch.repeat_interleave(start - part.group_start, count)
        classes = torch.arange(len(shift), device=self.device) + shift
        part.class_start, part.class_count = self.class_start[classes], self.class_count[classes]
        part.class_names = tuple(self.class_names[c] for c in classes.tolist())
        family = torch.repeat_interleave(self.family_count)[groups]
        part.family_count = family.unique(return_counts=True)[1]
        part.family_start = part.family_count.cumsum(0) - part.family_count
        return part

    def gather(self, indices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Images at these positions, in ``pixel_range``: [*indices.shape, C, H, W]."""
        flat = indices.flatten()
        float_bytes = 4 * self.images.numel()
        if not is_gpu(self.device) and dtype == torch.float32 and float_bytes <= MAX_FLOAT_BYTES:
            # On a CPU conversion takes several times as long as the copy; on a GPU it is hidden,
            # and memory is scarcer.
            if not self._floats:
                self._floats.append(self._normalized(self.images, dtype))
            chosen = self._floats[0].index_select(0, flat)
        else:
            chosen = self._normalized(self.images.index_select(0, flat), dtype)
        return chosen.unflatten(0, indices.shape)

    def _normalized(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        low, high = self.pixel_range
        images = images.to(dtype).mul_((high - low) / 255)
        return images.add_(low) if low else images

    def require(self, way: int, per_class: int, what: str = "split", prefix: str = "--") -> None:
        """Raise ConfigError for too few classes (``way``) or a class with too few images.

        Messages have the name of the table (``what``) and the ``prefix`` of options.
        """
        groups = len(self.group_start)
        if way > groups:
            has = f"the {what} has {groups} that can be in one episode"
            most = f"use a {prefix}way of at most {groups}"
            raise ConfigError(f"an episode needs {way} classes, but {has}; {most}.")
        fewest = int(self.class_count.min())
        if per_class > fewest:
            name = self.class_names[int(self.class_count.argmin())]
            needs = f"an episode needs {per_class} images of a class (shot + query + unlabeled)"
            has = f"class '{name}' of the {what} has {fewest}"
            options = f"{prefix}shot, {prefix}query or --unlabeled"
            raise ConfigError(f"{needs}, but {has}; lower {options}.")
