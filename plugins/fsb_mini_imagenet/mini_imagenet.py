"""Mini-ImageNet: 100 classes of ImageNet with 600 images each, from the user's own copy."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np

from fewshot_bench.data import (
    IMAGE_SUFFIXES,
    Dataset,
    Decoded,
    LabeledImages,
    Resize,
    Splits,
    cached,
    decode_image,
    file_stamp,
    read_image,
    resize,
    select_classes,
)
from fewshot_bench.errors import ConfigError, DataError

PARTS = {"train": 64, "val": 16, "test": 20}  # classes of each list
LISTS = "miniimagenet_ravi"
EXPECTED = "Mini-ImageNet's images under the names of Ravi and Larochelle's lists"


class MiniImageNet(Dataset):
    """Mini-ImageNet (Vinyals et al. 2016) with the split of Ravi and Larochelle (ICLR 2017).

    ImageNet's license forbids to pass its images on, so they are the user's own: a folder with the
    files that the lists name (``n0153282900000005.jpg``), at any depth. The lists ``train.csv``,
    ``val.csv`` and ``test.csv`` are looked for in ``splits/miniimagenet_ravi`` beside or in it.

    Arguments:
        image_size: side in pixels; images of another shape are squashed to a square.
        resize: see :func:`fewshot_bench.data.resize`.
    """

    splits = ("ravi",)

    def __init__(
        self,
        *,
        image_size: Annotated[int, "side of the images in pixels"] = 84,
        resize: Annotated[Resize, "how images of another size are resized"] = "antialias",
    ) -> None:
        if not 4 <= image_size <= 512:
            raise ConfigError(f"--image-size {image_size}: give 4 to 512.")
        self.image_size, self.resize = image_size, resize

    def load(self, root: Path | None, cache: Path) -> Splits:
        assert root is not None, "Mini-ImageNet needs files"
        listed, files = read_lists(root), image_files(root)
        key = {
            "format": 1,
            "files": stamp(listed, files),
            "size": self.image_size,
            "resize": self.resize,
        }
        decoded = cached(cache, "mini-imagenet", key, lambda: self._decode(listed, files))
        counts = Counter(label for part in listed.values() for _, label in part)
        whole = LabeledImages(
            images=decoded.images,
            counts=np.array(list(counts.values()), np.int64),
            class_names=tuple(counts),
        )
        number = {label: i for i, label in enumerate(counts)}
        train, validation, test = (
            select_classes(whole, {number[label] for _, label in part}) for part in listed.values()
        )
        return Splits(
            train=train,
            validation=validation,
            test=test,
            digest=decoded.meta["digest"],
            license="ImageNet's terms: for research, not to be passed on",
            source="Vinyals et al. 2016; Ravi and Larochelle 2017; image-net.org",
            notes=(
                f"Mini-ImageNet at {self.image_size} x {self.image_size} ({self.resize}), "
                "lists of Ravi and Larochelle.",
            ),
        )

    def verify(self, root: Path | None) -> str:
        assert root is not None, "Mini-ImageNet needs files"
        listed = read_lists(root)
        decoded = self._decode(listed, image_files(root))
        return (
            f"all {len(decoded.images)} images of the lists are in '{root}' and can be read; "
            f"content sha256 {decoded.meta['digest']}."
        )

    def _decode(self, listed: dict[str, list[tuple[str, str]]], files: dict[str, Path]) -> Decoded:
        """All listed images in the lists' order; the digest is over names and bytes."""
        rows = [row for part in listed.values() for row in part]
        images = np.empty((len(rows), 3, self.image_size, self.image_size), np.uint8)
        sha = hashlib.sha256()
        for i, (name, label) in enumerate(rows):
            data = read_image(files[name])
            sha.update(f"{label}/{name}\0".encode() + hashlib.sha256(data).digest())
            image = decode_image(data, str(files[name]), "RGB")
            images[i] = resize(image[None], self.image_size, self.resize)[0]
        return Decoded(images, {"digest": sha.hexdigest()})


def read_lists(root: Path) -> dict[str, list[tuple[str, str]]]:
    """(file, class) of each part, sorted by class.

    Raises:
        DataError: a list is missing, has another number of classes, or shares one with another.
    """
    places = [root.parent / "splits" / LISTS, root / "splits" / LISTS, root / LISTS]
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        raise DataError(
            f"mini-imagenet needs the lists train.csv, val.csv and test.csv in '{places[0]}' (or "
            f"in '{places[2]}'); put them there."
        )
    listed: dict[str, list[tuple[str, str]]] = {}
    for part, classes in PARTS.items():
        path = folder / f"{part}.csv"
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = [(row["filename"], row["label"]) for row in csv.DictReader(file)]
        except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
            raise DataError(f"cannot read '{path}' as filename,label lines ({error}).") from error
        if (found := len({label for _, label in rows})) != classes:
            raise DataError(f"'{path}' lists {found} classes; Ravi and Larochelle's has {classes}.")
        listed[part] = sorted(rows, key=lambda row: (row[1], row[0]))
    labels = [{label for _, label in rows} for rows in listed.values()]
    if len(set().union(*labels)) != sum(PARTS.values()):
        raise DataError(f"the lists in '{folder}' share classes; expected disjoint ones.")
    return listed


def image_files(root: Path) -> dict[str, Path]:
    """The image files below a folder, by name."""
    paths = sorted(root.rglob("*"))
    return {path.name: path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES}


def stamp(listed: dict[str, list[tuple[str, str]]], files: dict[str, Path]) -> str:
    """Changes when a listed file does.

    Raises:
        DataError: listed files are missing; says how many, and one of them.
    """
    names = [name for part in listed.values() for name, _ in part]
    missing = [name for name in names if name not in files]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(names)} images are missing, for example '{missing[0]}'; "
            f"expected {EXPECTED}."
        )
    lines = (f"{name}:{file_stamp(files[name])}" for name in names)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
