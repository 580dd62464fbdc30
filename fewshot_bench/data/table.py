"""A split on the device: bytes, and the index arithmetic that samplers need."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from fewshot_bench.data.images import LabeledImages
from fewshot_bench.errors import ConfigError
from fewshot_bench.utils.devices import is_gpu

KEPT_AS_FLOATS = 256 * 2**20  # bytes: larger splits are converted image by image


class ClassTable:
    """All images of a split as uint8 on the device, addressed by class, group and family.

    A group holds the classes that never meet in an episode (the rotations of one character); a
    family holds groups (an alphabet). Classes are sorted by group and groups by family, so each
    level is a range of the level below: ``start`` and ``count`` say which.

    Attributes:
        images: uint8 [M, C, H, W].
        class_start, class_count: int64 [classes], ranges of images.
        group_start, group_count: int64 [groups], ranges of classes.
        family_start, family_count: int64 [families], ranges of groups.
        class_names: one per class.
        order: int64 [M] on the host, each image's place in its source's reading order.
    """

    def __init__(
        self,
        labeled: LabeledImages,
        device: torch.device | str = "cpu",
        pixel_range: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self.device = torch.device(device)
        self.pixel_range = pixel_range
        self.class_names = labeled.class_names
        self.order = torch.from_numpy(np.array(labeled.order))
        # A copy: the host array may be a read-only memory map.
        self.images = torch.from_numpy(np.array(labeled.images)).to(self.device)
        self._floats: list[Tensor] = []  # at most one; shared with the table's parts
        self.class_start, self.class_count = self._ranges(labeled.counts)
        group_of, groups = np.unique(labeled.groups, return_index=True)
        self.group_start, self.group_count = self._ranges(
            np.bincount(np.searchsorted(group_of, labeled.groups))
        )
        family_of_group = labeled.families[groups]
        self.family_start, self.family_count = self._ranges(
            np.unique(family_of_group, return_counts=True)[1]
        )

    def _ranges(self, counts: np.ndarray) -> tuple[Tensor, Tensor]:
        count = torch.as_tensor(np.ascontiguousarray(counts), dtype=torch.int64)
        return (count.cumsum(0) - count).to(self.device), count.to(self.device)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def part(self, groups: Tensor) -> ClassTable:
        """A table of some groups, given sorted, over the same images; classes count from 0 anew."""
        whole, part = self, copy.copy(self)
        classes = _members(whole.group_start[groups], whole.group_count[groups])
        part.class_start, part.class_count = whole.class_start[classes], whole.class_count[classes]
        part.class_names = tuple(whole.class_names[c] for c in classes.tolist())
        part.group_count = whole.group_count[groups]
        part.group_start = part.group_count.cumsum(0) - part.group_count
        family = torch.repeat_interleave(whole.family_count)[groups]
        part.family_count = family.unique(return_counts=True)[1]
        part.family_start = part.family_count.cumsum(0) - part.family_count
        return part

    def gather(self, indices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Images at these positions, in ``pixel_range``: [*indices.shape, C, H, W]."""
        flat = indices.flatten()
        floats = 4 * self.images.numel()
        if not is_gpu(self.device) and dtype == torch.float32 and floats <= KEPT_AS_FLOATS:
            # Conversion costs a CPU several times the copy; a GPU hides it and has dearer memory.
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
        """Check that an episode of this size can be drawn.

        Arguments:
            way: classes of an episode, distractors included.
            per_class: images of each.
            what: the table is, for the message.
            prefix: of the options that a message names: ``--`` or ``--train-``.

        Raises:
            ConfigError: too few classes, or a class with too few images.
        """
        groups = len(self.group_start)
        if way > groups:
            raise ConfigError(
                f"an episode of {way} classes was asked for, but the {what} has {groups} that may "
                f"meet; give a {prefix}way of at most {groups}."
            )
        fewest = int(self.class_count.min())
        if per_class > fewest:
            name = self.class_names[int(self.class_count.argmin())]
            raise ConfigError(
                f"an episode takes {per_class} images of a class (shot + query + unlabeled), but "
                f"class '{name}' of the {what} has {fewest}; lower {prefix}shot, {prefix}query or "
                "--unlabeled."
            )


def _members(start: Tensor, count: Tensor) -> Tensor:
    """The members of ranges, one range after the other."""
    which = torch.repeat_interleave(count)
    first = count.cumsum(0) - count
    place = torch.arange(len(which), device=start.device) - first[which]
    return start[which] + place
