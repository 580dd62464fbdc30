"""CIFAR-FS and FC100: the 100 classes of CIFAR-100, 600 images each, in two splits.

Both read the published files of CIFAR-100 for Python (``cifar-100-python``), and class lists in
``splits/cifar_fs`` or ``splits/fc100`` beside the data's folder.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fewshot_bench.data import Dataset, Decoded, LabeledImages, Splits, cached, select_classes
from fewshot_bench.errors import DataError
from fsb_cifar100 import files

PARTS = ("train", "val", "test")


class Cifar100(Dataset):
    """CIFAR-100 (Krizhevsky 2009) with training and test images together, 32x32 RGB.

    Families are the 20 superclasses.
    """

    lists: ClassVar[str]
    about: ClassVar[str]

    def load(self, root: Path | None, cache: Path) -> Splits:
        assert root is not None, "CIFAR-100 needs files"
        key = {"format": 1, "files": files.stamp(root)}
        decoded = cached(cache, "cifar100", key, lambda: read(root))
        families: list[str] = decoded.meta["families"]
        number = {name: i for i, name in enumerate(dict.fromkeys(families))}
        whole = LabeledImages(
            images=decoded.images,
            counts=np.array(decoded.meta["counts"], np.int64),
            class_names=tuple(decoded.meta["classes"]),
            families=np.array([number[name] for name in families], np.int64),
            family_names=tuple(number),
        )
        chosen = self.chosen(root, decoded.meta)
        train, validation, test = (select_classes(whole, chosen[part]) for part in PARTS)
        return Splits(
            train=train,
            validation=validation,
            test=test,
            digest=decoded.meta["digest"],
            license="not stated by its authors; for research",
            source=f"Krizhevsky 2009, cs.toronto.edu/~kriz/cifar.html; {self.about}",
            notes=(f"CIFAR-100 at 32 x 32, training and test images together; {self.about}.",),
        )

    def chosen(self, root: Path, meta: dict[str, Any]) -> dict[str, set[int]]:
        """The classes of each part, as the lists have them.

        Raises:
            DataError: a list is missing or damaged, names what is unknown, or the lists overlap.
        """
        folder = list_folder(root, self.lists)
        wanted: dict[str, set[int]] = {}
        for part in PARTS:
            path = folder / f"{part}.json"
            try:
                names = json.loads(path.read_text("utf-8"))
                wanted[part] = {i for name in names for i in self.members(name, meta)}
            except (OSError, ValueError, TypeError) as error:
                raise DataError(f"cannot read the class list '{path}' ({error}).") from error
        if sum(map(len, wanted.values())) != len(set().union(*wanted.values())):
            raise DataError(f"the lists in '{folder}' share classes; expected disjoint ones.")
        return wanted

    def members(self, name: Any, meta: dict[str, Any]) -> list[int]:
        """Positions of the classes that an entry of a list stands for.

        Raises:
            ValueError: there is no such class.
        """
        raise NotImplementedError

    def verify(self, root: Path | None) -> str:
        assert root is not None, "CIFAR-100 needs files"
        decoded = read(root)
        return (
            f"{len(decoded.images)} images of {len(decoded.meta['classes'])} classes in '{root}' "
            f"are as published (md5); content sha256 {decoded.meta['digest']}."
        )

    def download(self, target: Path) -> None:
        files.download_to(target)


class CifarFS(Cifar100):
    """CIFAR-FS (Bertinetto et al. 2019): 64, 16 and 20 classes of CIFAR-100."""

    lists, about = "cifar_fs", "split of Bertinetto et al. 2019"

    def members(self, name: Any, meta: dict[str, Any]) -> list[int]:
        family, label = name
        place: int = meta["classes"].index(label)
        if meta["families"][place] != family:
            raise ValueError(f"'{label}' is not in '{family}'")
        return [place]


class FC100(Cifar100):
    """FC100 (Oreshkin et al. 2018): 12, 4 and 4 superclasses of CIFAR-100, five classes each."""

    lists, about = "fc100", "split of Oreshkin et al. 2018"

    def members(self, name: Any, meta: dict[str, Any]) -> list[int]:
        found = [i for i, family in enumerate(meta["families"]) if family == name]
        if not found:
            raise ValueError(f"no superclass '{name}'")
        return found


def list_folder(root: Path, name: str) -> Path:
    """Where the class lists are.

    Raises:
        DataError: nowhere.
    """
    places = [root.parent / "splits" / name, root / "splits" / name]
    for place in places:
        if place.is_dir():
            return place
    raise DataError(
        f"the lists train.json, val.json and test.json are wanted in '{places[0]}' (or in "
        f"'{places[1]}'); put them there."
    )


def read(root: Path) -> Decoded:
    """All images, sorted by superclass, class and place in the files.

    Raises:
        DataError: the files are not the published ones.
    """
    parts = [files.load(root, name) for name in ("train", "test")]
    names = files.load(root, "meta")
    images = np.concatenate([part["data"] for part in parts]).reshape(-1, 3, 32, 32)
    fine = np.concatenate([part["fine_labels"] for part in parts])
    coarse = np.concatenate([part["coarse_labels"] for part in parts])
    order = np.lexsort((np.arange(len(fine)), fine, coarse))
    images = np.ascontiguousarray(images[order])
    first = np.flatnonzero(np.r_[True, np.diff(fine[order]) != 0])
    meta = {
        "classes": [names["fine_label_names"][i] for i in fine[order][first]],
        "families": [names["coarse_label_names"][i] for i in coarse[order][first]],
        "counts": np.diff(np.r_[first, len(fine)]).tolist(),
        "digest": hashlib.sha256(
            images.tobytes() + fine[order].astype("<i8").tobytes()
        ).hexdigest(),
    }
    return Decoded(images, meta)
