"""Checks of a data set: what it says of itself, and that its splits can be trusted."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from fewshot_bench.data.images import Dataset, LabeledImages, Splits
from fewshot_bench.data.table import ClassTable
from fewshot_bench.episode import Task
from fewshot_bench.errors import FewshotBenchError
from fewshot_bench.sampling.base import EpisodeSource
from fewshot_bench.sampling.closed import ClosedSampler
from fewshot_bench.testing.checks import Fault, NotClaimed


@dataclass
class DatasetSubject:
    """A data set under test.

    Arguments:
        make: builds it.
        root: the folder of its files; None if it needs none.
    """

    make: Callable[[], Dataset]
    root: Path | None = None

    def __post_init__(self) -> None:
        self._loaded: Splits | None = None

    def load(self, cache: Path) -> Splits:
        """Read everything once more."""
        splits = self.make().load(self.root, cache)
        if not isinstance(splits, Splits):
            raise Fault(
                f"load() gave {type(splits).__name__}; return fewshot_bench.Splits(train, "
                "validation, test, digest, license, source)."
            )
        return splits

    @property
    def splits(self) -> Splits:
        """What it loads, read once for all checks that only look."""
        if self._loaded is None:
            with folder() as cache:
                self._loaded = _in_memory(self.load(cache))
        return self._loaded

    def parts(self) -> dict[str, LabeledImages]:
        """The splits that there are."""
        splits = self.splits
        found = {"train": splits.train, "validation": splits.validation, "test": splits.test}
        return {name: images for name, images in found.items() if images is not None}


@contextmanager
def folder() -> Iterator[Path]:
    """An empty folder for decoded files, for a while."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path) / "cache"


def _in_memory(splits: Splits) -> Splits:
    """Splits that outlive the files that they were mapped from."""

    def held(images: LabeledImages | None) -> LabeledImages | None:
        return None if images is None else replace(images, images=np.array(images.images))

    changed = {name: held(getattr(splits, name)) for name in ("train", "validation", "test")}
    return replace(splits, **changed)  # type: ignore[arg-type]


def disjoint(subject: DatasetSubject) -> None:
    """No class is in two splits."""
    for (one, a), (two, b) in combinations(subject.parts().items(), 2):
        common = sorted(set(a.class_names) & set(b.class_names))
        if common:
            raise Fault(
                f"class '{common[0]}' ({len(common)} in all) is in {one} and in {two}; a test "
                "class that was trained on tests nothing."
            )


def class_names(subject: DatasetSubject) -> None:
    """Within a split every class has a name of its own."""
    for split, images in subject.parts().items():
        doubled = len(images.class_names) - len(set(images.class_names))
        if doubled:
            raise Fault(f"{doubled} class names of {split} occur twice; make them unique.")


def digest(subject: DatasetSubject) -> None:
    """Loading again, with and without a cache, gives the same digest and the same images."""
    found = subject.splits.digest
    if not re.fullmatch(r"[0-9a-f]{64}", str(found)):
        raise Fault(f"digest is {found!r}; the hex sha256 of the content is wanted.")
    with folder() as cache:
        for what in ("from another cache", "from the cache"):
            again = subject.load(cache)
            if again.digest != found:
                raise Fault(
                    f"the digest {what} is {again.digest[:12]}.., before {found[:12]}..; "
                    "take it over the content in a fixed order."
                )
            for split, images in subject.parts().items():
                other = getattr(again, split)
                if not np.array_equal(np.asarray(other.images), images.images):
                    raise Fault(f"{split} has other images {what}, and the same digest.")


def license(subject: DatasetSubject) -> None:
    """The license is named."""
    if not str(subject.splits.license or "").strip():
        raise Fault("license is empty; give an SPDX name, or a sentence if it is not known.")


def source(subject: DatasetSubject) -> None:
    """The source is named: where the data come from, or a citation."""
    if not str(subject.splits.source or "").strip():
        raise Fault("source is empty; say where the data come from.")


def images(subject: DatasetSubject) -> None:
    """Images are not all alike, and all splits have one shape."""
    shapes = {name: part.image_shape for name, part in subject.parts().items()}
    if len(set(shapes.values())) > 1:
        raise Fault(f"splits differ in image shape: {shapes}.")
    for name, part in subject.parts().items():
        if int(part.images.min()) == int(part.images.max()):
            raise Fault(f"every pixel of {name} is {int(part.images.min())}.")


def episodes(subject: DatasetSubject) -> None:
    """Each split gives 2-way 1-shot episodes of one query."""
    for name, part in subject.parts().items():
        try:
            sampler = ClosedSampler(ClassTable(part), Task(2, 1, 1), 0)
            EpisodeSource(sampler).batch(range(4))
        except FewshotBenchError as error:
            raise Fault(f"{name}: {error}") from error


def verify(subject: DatasetSubject) -> None:
    """verify() says in a sentence what it checked of the files."""
    dataset = subject.make()
    if not dataset.needs_files:
        raise NotClaimed("needs_files = False")
    said = dataset.verify(subject.root)
    if not isinstance(said, str) or not said.strip():
        raise Fault(f"verify() gave {said!r}; a sentence on what was checked is wanted.")


DATASET = (disjoint, class_names, digest, license, source, images, episodes, verify)
