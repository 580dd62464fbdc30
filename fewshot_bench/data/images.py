"""Labeled images on the host, as a data set delivers them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fewshot_bench.errors import DataError


@dataclass(frozen=True)
class LabeledImages:
    """Images of one split, sorted by class.

    Arguments:
        images: uint8 [M, C, H, W]; may be a read-only memory map.
        counts: int64 [classes]; images of class 0 come first, then those of class 1, ...
        class_names: one name per class, unique.
        groups: int64 [classes]; classes of one group never share an episode (two rotations of
            one character). Sorted; default: each class is a group of its own.
        families: int64 [classes]; an optional coarser label (the alphabet), constant within a
            group and sorted; default: all 0.
        family_names: one name per family.
        order: int64 [M], places in the order in which the source's reader delivers the images
            (``--sampling in-order`` follows it), images of one place in the order that they have
            here; default: the order that they have here.
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
        if not self.groups.size:
            object.__setattr__(self, "groups", np.arange(classes))
        if not self.families.size:
            object.__setattr__(self, "families", np.zeros(classes, np.int64))
        if not self.order.size:
            object.__setattr__(self, "order", np.arange(len(self.images)))
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise DataError(
                f"images are uint8 [M, C, H, W], not {self.images.dtype} {self.images.shape}"
            )
        if int(self.counts.sum()) != len(self.images) or len(self.class_names) != classes:
            raise DataError("counts, class names and images do not belong together")
        if len(self.order) != len(self.images):
            raise DataError(f"order has to have one place per image, not {len(self.order)}")
        for name in ("groups", "families"):
            values = getattr(self, name)
            if len(values) != classes or (np.diff(values) < 0).any():
                raise DataError(f"{name} has to be sorted, one number per class")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        _, channels, height, width = self.images.shape
        return channels, height, width


@dataclass(frozen=True)
class Splits:
    """What :meth:`Dataset.load` returns.

    Arguments:
        train, validation, test: class-disjoint. ``validation`` may be None: then the last
            weights are used.
        digest: hex sha256 of the content that the images were made from (not of an archive).
        license: SPDX name or a sentence.
        source: where the data come from; a citation.
        notes: sentences that a reader of a result has to know (resize mode, kept-out classes).
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

    ``Annotated[int, "help"]`` gives an argument its help text. An argument called ``path`` takes
    what the user types behind the colon of ``--dataset folder:PATH``.

    Class attributes:
        splits: names that ``split`` may take; the first is the default.
        needs_files: False for data that are made, not read.
        image_options: options that decide what an image looks like to a network; a trained run
            keeps them on other data.
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
        """Read the data.

        Arguments:
            root: the folder that holds the data's files; None if ``needs_files`` is False.
            cache: a folder of this data set's own for decoded files; may not exist yet.

        Raises:
            DataError: a file is missing or damaged; says which, and what was expected.
        """
        raise NotImplementedError

    def verify(self, root: Path | None) -> str:
        """Check the files' content against what is known; a sentence on what was checked."""
        raise NotImplementedError

    def download(self, target: Path) -> None:
        """Fetch the files into a folder. The default says that it cannot."""
        raise DataError(
            f"{type(self).__name__} cannot be downloaded; put its files into {target}, or name "
            "their folder with --data-root."
        )
