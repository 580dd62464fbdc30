"""Labeled images on the host, as a data set returns them, and digests of their content."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fewshot_bench.errors import DataError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class LabeledImages:
    """Images of one split, sorted by class.

    Arguments:
        images: uint8 [M, C, H, W]; may be a read-only memory map.
        counts: int64 [classes]; images of class 0 come first, then those of class 1, ...
        class_names: one name per class, unique.
        groups: int64 [classes], sorted; classes of one group (two rotations of one character)
            are never in one episode. Default: each class is a group of its own.
        families: int64 [classes], sorted; an optional coarser label (the alphabet), constant
            within a group. Default: all 0.
        family_names: one name per family.
        order: int64 [M], each image's position in the order in which its source is read, which
            ``--sampling in-order`` follows; ties keep the order here. Default: the order here.

    Raises:
        DataError: the parts do not fit together.
    """

    images: npt.NDArray[np.uint8]
    counts: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    groups: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    families: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    family_names: tuple[str, ...] = ("all",)
    order: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def __post_init__(self) -> None:
        classes = len(self.counts)
        defaults = {"groups": np.arange(classes), "families": np.zeros(classes, np.int64)}
        for name, value in {**defaults, "order": np.arange(len(self.images))}.items():
            if not getattr(self, name).size:
                object.__setattr__(self, name, value)
        found = f"{self.images.dtype} {self.images.shape}"
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise DataError(f"expected images uint8 [M, C, H, W], got {found}")
        if int(self.counts.sum()) != len(self.images) or len(self.class_names) != classes:
            raise DataError("counts, class names and images do not fit together")
        if len(self.order) != len(self.images):
            raise DataError(f"expected one position in order per image, got {len(self.order)}")
        for name in ("groups", "families"):
            values = getattr(self, name)
            if len(values) != classes or (np.diff(values) < 0).any():
                raise DataError(f"expected {name} to be sorted, one number per class")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        _, channels, height, width = self.images.shape
        return channels, height, width


@dataclass(frozen=True)
class Splits:
    """What :meth:`Dataset.load` returns.

    Arguments:
        train, validation, test: class-disjoint. Without ``validation`` (None) the last weights
            are used.
        digest: hex sha256 of the content that the images were made from (not of an archive).
        license: SPDX name or a sentence.
        source: a citation.
        notes: sentences that a reader of a result has to know (resize mode, excluded classes).
    """

    train: LabeledImages
    validation: LabeledImages | None
    test: LabeledImages
    digest: str
    license: str
    source: str
    notes: tuple[str, ...] = ()


class Dataset:
    """Base class of data sets. Keyword-only arguments of ``__init__`` become options.

    ``Annotated[int, "help"]`` gives an argument its help text. An argument ``path`` gets the text
    after the colon of ``--dataset folder:PATH``.

    Class attributes:
        splits: values of ``split``; the first is the default.
        needs_files: False for data that are generated, not read.
        image_options: options that decide what an image looks like to a network; a trained run
            uses the same on other data.
        family: what the images show, for presets of methods: ``"characters"`` (small pictures of
            many classes), ``"natural-images"``, or another word.
        protocols: {name: this data set's options} of published protocols that presets name.
    """

    splits: ClassVar[Sequence[str]] = ("official",)
    needs_files: ClassVar[bool] = True
    image_options: ClassVar[Sequence[str]] = ("image_size", "resize", "color")
    family: ClassVar[str] = "natural-images"
    protocols: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def load(self, root: Path | None, cache: Path) -> Splits:
        """Read the data; DataError if a file is missing or damaged.

        Arguments:
            root: the folder that holds the data's files; None if ``needs_files`` is False.
            cache: this data set's folder for decoded files; may not exist yet.
        """
        raise NotImplementedError

    def verify(self, root: Path | None) -> str:
        """Check the files against known digests; returns a sentence on what was checked."""
        raise NotImplementedError

    def download(self, target: Path) -> None:
        """Download the files into a folder; DataError if that fails, as it does by default."""
        advice = f"put its files into {target}, or name their folder with --data-root"
        raise DataError(f"{type(self).__name__} cannot be downloaded; {advice}.")


@dataclass(frozen=True)
class ClassContent:
    """A class of a split: its number there, its content, and the sha256 of its pixels in order."""

    split: str
    id: int
    name: str
    group: int
    family: str
    images: int
    sha256: str


@dataclass(frozen=True)
class SplitsContent:
    """All classes in order of the splits, the shape of an image of each, and a sha256 over both."""

    classes: tuple[ClassContent, ...]
    shapes: Mapping[str, list[int]]
    sha256: str
    bytes: int

    def digest(self, *splits: str) -> str:
        """sha256 over everything that decides the images of episodes of these splits: no names."""
        parts = []
        for split in splits:
            own = [c for c in self.classes if c.split == split]
            families = list(dict.fromkeys(c.family for c in own))
            rows = [[c.group, families.index(c.family), c.images, c.sha256] for c in own]
            parts.append([self.shapes.get(split), rows])
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def content_of_splits(splits: Splits) -> SplitsContent:
    """Read every pixel once; the data set's own ``digest`` is not used."""
    present = {s: part for s in SPLITS if (part := getattr(splits, s)) is not None}
    classes = []
    for split, part in present.items():
        _, groups = np.unique(part.groups, return_inverse=True)
        ends = np.cumsum(part.counts).tolist()
        for i, (end, count) in enumerate(zip(ends, part.counts.tolist(), strict=True)):
            pixels = np.ascontiguousarray(part.images[end - count : end])
            sha256 = hashlib.sha256(pixels.data).hexdigest()
            name, family = str(part.class_names[i]), str(part.family_names[part.families[i]])
            classes.append(ClassContent(split, i, name, int(groups[i]), family, count, sha256))
    shapes = {name: list(part.image_shape) for name, part in present.items()}
    text = json.dumps([shapes, [list(vars(c).values()) for c in classes]], ensure_ascii=True)
    size = sum(int(part.images.nbytes) for part in present.values())
    return SplitsContent(tuple(classes), shapes, hashlib.sha256(text.encode()).hexdigest(), size)
