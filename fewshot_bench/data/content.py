"""What a data set came to: a digest of each class's images, and one of all splits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fewshot_bench.data.images import LabeledImages, Splits

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class ClassContent:
    """A class of a split.

    Arguments:
        split: ``train``, ``validation`` or ``test``.
        id: its number in the split, which ``episodes.csv`` has.
        name: of the class.
        group: number of its group; classes of one group never share an episode.
        family: name of its family.
        images: how many.
        sha256: of its images' pixels, in order.
    """

    split: str
    id: int
    name: str
    group: int
    family: str
    images: int
    sha256: str


@dataclass(frozen=True)
class SplitsContent:
    """All classes, and a digest of everything that an episode is drawn from.

    Arguments:
        classes: of the training, validation and test split, in order.
        shapes: of an image of each split.
        sha256: over the shape of the images and all that ``classes`` has.
        bytes: of all images.
    """

    classes: tuple[ClassContent, ...]
    shapes: Mapping[str, list[int]]
    sha256: str
    bytes: int

    def digest(self, *splits: str) -> str:
        """sha256 over all that episodes of these splits, and of no others, can hold.

        The images of each class, its group and its family count, and the order of the classes,
        which episodes are drawn by. Names do not: where two digests agree, episodes of the same
        numbers show the same images. A split that is missing has nothing.
        """
        parts = [[self.shapes.get(name), self._numbers(name)] for name in splits]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _numbers(self, split: str) -> list[list[int | str]]:
        """Group, family, number of images and their digest of each class of a split."""
        own = [c for c in self.classes if c.split == split]
        families = list(dict.fromkeys(c.family for c in own))
        return [[c.group, families.index(c.family), c.images, c.sha256] for c in own]


def content_of_splits(splits: Splits) -> SplitsContent:
    """Read every pixel once. What a data set says of itself, its ``digest``, is not used."""
    parts = {name: getattr(splits, name) for name in SPLITS}
    present = {name: part for name, part in parts.items() if part is not None}
    classes = tuple(c for name, part in present.items() for c in _classes(name, part))
    shapes = {name: list(part.image_shape) for name, part in present.items()}
    rows = [list(vars(c).values()) for c in classes]
    text = json.dumps([shapes, rows], ensure_ascii=True)
    size = sum(int(part.images.nbytes) for part in present.values())
    return SplitsContent(classes, shapes, hashlib.sha256(text.encode()).hexdigest(), size)


def _classes(split: str, part: LabeledImages) -> Iterator[ClassContent]:
    _, groups = np.unique(part.groups, return_inverse=True)
    start = 0
    for i, count in enumerate(part.counts.tolist()):
        pixels = np.ascontiguousarray(part.images[start : start + count])
        start += count
        yield ClassContent(
            split,
            i,
            str(part.class_names[i]),
            int(groups[i]),
            str(part.family_names[part.families[i]]),
            count,
            hashlib.sha256(pixels.data).hexdigest(),
        )
