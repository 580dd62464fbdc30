"""``folder:PATH``: a data set of one's own."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from fewshot_bench import InputFile
from fewshot_bench.data import (
    ClassLists,
    Dataset,
    Decoded,
    LabeledImages,
    Resize,
    Splits,
    cached,
    check_lists,
    decode_image,
    expand_home,
    random_splits,
    read_split_file,
    resize,
    select_classes,
)
from fewshot_bench.errors import ConfigError, DataError
from fsb_folder.files import Files, class_of, open_files

MODES = {"rgb": "RGB", "gray": "L"}


class Folder(Dataset):
    """A directory or zip archive with one folder of PNG or JPEG images per class.

    Arguments:
        path: the directory or archive; a single top folder above the classes is skipped.
        color: ``rgb`` or ``gray``; images are converted.
        image_size: side in pixels; images of another shape are squashed to a square.
        resize: see :func:`fewshot_bench.data.resize`.
        split_file: classes of train, validation and test (:mod:`fewshot_bench.data.splits`);
            without it classes are dealt by seed.
        split_seed, validation_share, test_share: of a split by seed.
        keep_together: classes that show the same things; they stay in one split and never share
            an episode. Names separated by commas, bundles by semicolons.
    """

    splits = ("seed", "file")
    needs_files = False  # the path is the location: nothing is looked for elsewhere

    def __init__(
        self,
        *,
        path: Annotated[str, "directory or zip with one folder of images per class"] = "",
        color: Annotated[Literal["rgb", "gray"], "convert images to"] = "rgb",
        image_size: Annotated[int, "side of the images in pixels"] = 84,
        resize: Annotated[Resize, "how images of another size are resized"] = "antialias",
        split_file: Annotated[
            InputFile | None, "TOML, JSON or CSV with the classes of each split (default: by seed)"
        ] = None,
        split_seed: Annotated[int, "deals the classes, without a split file"] = 0,
        validation_share: Annotated[float, "share of the classes that validate"] = 0.16,
        test_share: Annotated[float, "share of the classes that test"] = 0.2,
        keep_together: Annotated[
            str, "overlapping classes, as a,b;c,d: one split, never in one episode"
        ] = "",
    ) -> None:
        if not path:
            raise ConfigError("give the directory or zip archive as --dataset folder:PATH.")
        if not 4 <= image_size <= 1024:
            raise ConfigError(f"--image-size {image_size}: give 4 to 1024.")
        for name, share in (("validation", validation_share), ("test", test_share)):
            if not 0 <= share < 1:
                raise ConfigError(f"--{name}-share {share}: give a fraction from 0 to 1.")
        self.path = expand_home(path)
        self.color, self.image_size, self.resize = color, image_size, resize
        self.split_file = None if split_file is None else InputFile(split_file)
        self.split_seed = split_seed
        self.shares = (validation_share, test_share)
        self.bundles = [
            [name.strip() for name in bundle.split(",") if name.strip()]
            for bundle in keep_together.split(";")
            if bundle.strip()
        ]

    @property
    def split(self) -> str:
        """``file`` or ``seed``."""
        return "file" if self.split_file else "seed"

    def load(self, root: Path | None, cache: Path) -> Splits:
        with open_files(self.path) as files:
            key = {
                "format": 2,
                "files": files.stamp,
                "color": self.color,
                "size": self.image_size,
                "resize": self.resize,
            }
            decoded = cached(cache, self.path.stem, key, lambda: self._decode(files))
        counts: dict[str, int] = decoded.meta["counts"]
        everything, order = self._grouped(decoded.images, counts)
        lists = self._lists(tuple(counts))
        parts = {
            split: select_classes(everything, (order[name] for name in names))
            for split, names in lists.items()
            if names
        }
        return Splits(
            train=parts["train"],
            validation=parts.get("validation"),
            test=parts["test"],
            digest=decoded.meta["digest"],
            license="the user's",
            source=str(self.path),
            notes=self._notes(decoded.meta),
        )

    def verify(self, root: Path | None) -> str:
        with open_files(self.path) as files:
            decoded = self._decode(files)
        counts = decoded.meta["counts"].values()
        return (
            f"'{self.path}': {sum(counts)} images of {len(counts)} classes (fewest in a class: "
            f"{min(counts)}) can be read; content sha256 {decoded.meta['digest']}."
        )

    def _decode(self, files: Files) -> Decoded:
        """All images, sorted by path, and what the record wants to know of the files.

        The digest is a sha256 over path and bytes of each file, so a directory and its archive
        have the same.
        """
        channels = 3 if self.color == "rgb" else 1
        images = np.empty((len(files.names), channels, self.image_size, self.image_size), np.uint8)
        sha = hashlib.sha256()
        classes_with: dict[bytes, set[str]] = {}
        for i, name in enumerate(files.names):
            data = files.read(name)
            own = hashlib.sha256(data).digest()
            sha.update(name.encode("utf-8", "surrogateescape") + b"\0" + own)
            classes_with.setdefault(own, set()).add(class_of(name))
            image = decode_image(data, f"{self.path}:{name}", MODES[self.color])
            images[i] = resize(image[None], self.image_size, self.resize)[0]
        meta = {
            "counts": dict(Counter(class_of(name) for name in files.names)),
            "digest": sha.hexdigest(),
            "copies": len(files.names) - len(classes_with),
            "in_two_classes": sum(len(classes) > 1 for classes in classes_with.values()),
        }
        return Decoded(images, meta)

    def _grouped(
        self, images: np.ndarray[Any, np.dtype[np.uint8]], counts: dict[str, int]
    ) -> tuple[LabeledImages, dict[str, int]]:
        """All classes with bundles side by side as groups; and the place of each class."""
        leader = {name: name for name in counts}
        for bundle in self.bundles:
            unknown = [name for name in bundle if name not in counts]
            if unknown:
                raise DataError(
                    f"--keep-together: '{self.path}' has no class '{unknown[0]}'; it has "
                    f"{', '.join(sorted(counts)[:5])}, ... ({len(counts)} in all)."
                )
            leader.update(dict.fromkeys(bundle, min(leader[name] for name in bundle)))
        names = sorted(counts, key=lambda name: (leader[name], name))
        starts = dict(zip(counts, np.cumsum([0, *counts.values()]), strict=False))
        if names != list(counts):
            images = np.concatenate([images[starts[n] : starts[n] + counts[n]] for n in names])
        labeled = LabeledImages(
            images=images,
            counts=np.array([counts[name] for name in names], np.int64),
            class_names=tuple(names),
            groups=np.unique([leader[name] for name in names], return_inverse=True)[1],
        )
        return labeled, {name: i for i, name in enumerate(names)}

    def _lists(self, classes: tuple[str, ...]) -> ClassLists:
        if self.split_file is None:
            return random_splits(classes, self.shares, self.split_seed, self.bundles)
        lists = read_split_file(expand_home(self.split_file))
        check_lists(lists, classes, self.split_file)
        split_of = {name: split for split, names in lists.items() for name in names}
        for bundle in self.bundles:
            if len({split_of[name] for name in bundle if name in split_of}) > 1:
                raise DataError(
                    f"split file '{self.split_file}' tears {', '.join(bundle)} apart, which "
                    "--keep-together wants in one split."
                )
        return lists

    def _notes(self, meta: dict[str, Any]) -> tuple[str, ...]:
        how = f"the file {self.split_file}" if self.split_file else f"seed {self.split_seed}"
        notes = [
            f"Images squashed to {self.image_size} x {self.image_size} ({self.color}, "
            f"{self.resize}); classes split by {how}."
        ]
        notes += [f"Kept together: {', '.join(bundle)}." for bundle in self.bundles]
        if meta["copies"]:
            notes.append(
                f"{meta['copies']} files are copies of another; {meta['in_two_classes']} files "
                "occur in more than one class."
            )
        return tuple(notes)
