"""Omniglot: 1623 handwritten characters of 50 alphabets, each drawn by 20 people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from fewshot_bench.data import (
    Dataset,
    Decoded,
    LabeledImages,
    Resize,
    Splits,
    cached,
    download_file,
    file_sha256,
    select_classes,
    with_rotations,
)
from fewshot_bench.errors import ConfigError
from fsb_omniglot.archives import (
    BASE_URL,
    DIGEST,
    DRAWERS,
    PARTS,
    hashed_order,
    read_all,
    read_part,
)  # fmt: skip
from fsb_omniglot.protocols import Characters, choose


class Omniglot(Dataset):
    """Omniglot (Lake, Salakhutdinov and Tenenbaum, Science 350, 2015).

    Read from the two official archives as they are; held against a digest of their pixels. In the
    images ink is 255 and paper 0, the inverse of the files, as in the few-shot papers, unless
    ``ink`` says otherwise. Families are alphabets.

    Arguments:
        split: ``official``: the background alphabets train, the evaluation alphabets test.
            ``vinyals``: the lists of Vinyals et al. (2016) as published by Snell et al. (2017),
            whose test classes include rotations. ``random``: 1200 characters and 423, by seed
            (Santoro et al. 2016; Finn et al. 2017, who turn the test classes too).
        image_size: side in pixels.
        resize: ``nearest`` keeps images binary, as in the papers.
        train_rotations: quarter turns of a training character are further classes.
        test_rotations: the same for validation and test; None: as the split's lists have it.
        twins: let two rotations of one character meet in an episode.
        split_seed: chooses the validation alphabets, and everything of ``random``.
        validation: ``none`` leaves the validation characters among the training ones.
        ink: ``white`` (255 on paper of 0) or ``black``, as in the files.
        order: in which the images are read, for ``--sampling in-order``: ``hashed``, as TensorFlow
            Datasets delivers them, or ``files``, one character of an alphabet after the other.
    """

    splits = ("official", "vinyals", "random")
    image_options = (*Dataset.image_options, "ink")
    family = "characters"
    protocols = {
        "random-characters": {"split": "random", "test_rotations": True},
        "vinyals": {"split": "vinyals"},
        "metagan-tutorial": {
            "split": "official",
            "validation": "none",
            "resize": "bilinear",
            "image_size": 28,
            "ink": "black",  # the files' polarity: with signed pixels paper is +1, padding gray
            "train_rotations": True,
            "test_rotations": False,
            "order": "hashed",
        },
    }

    def __init__(
        self,
        *,
        split: Annotated[
            Literal["official", "vinyals", "random"], "which characters train and test"
        ] = "official",
        image_size: Annotated[int, "side of the images in pixels"] = 28,
        resize: Annotated[
            Resize, "nearest (binary, as the papers), bilinear (no anti-aliasing) or antialias"
        ] = "nearest",
        train_rotations: Annotated[bool, "quarter turns are further training classes"] = True,
        test_rotations: Annotated[
            bool | None,
            "quarter turns are further validation and test classes (default: the split's)",
        ] = None,
        twins: Annotated[bool, "let two rotations of one character share an episode"] = False,
        split_seed: Annotated[int, "chooses validation alphabets and random splits"] = 0,
        validation: Annotated[
            Literal["alphabets", "none"], "cut validation classes from the training ones, or not"
        ] = "alphabets",
        ink: Annotated[
            Literal["white", "black"], "on black paper, as the papers, or on white, as the files"
        ] = "white",
        order: Annotated[
            Literal["hashed", "files"],
            "what --sampling in-order follows: images shuffled by a hash, as TensorFlow Datasets "
            "delivers them, or character after character",
        ] = "hashed",
    ) -> None:
        if not 4 <= image_size <= 512:
            raise ConfigError(f"--image-size {image_size}: give 4 to 512.")
        self.split, self.image_size, self.resize = split, image_size, resize
        self.train_rotations, self.twins = train_rotations, twins
        self.test_rotations = split == "vinyals" if test_rotations is None else test_rotations
        self.split_seed, self.validation = split_seed, validation
        self.ink, self.order = ink, order

    def load(self, root: Path | None, cache: Path) -> Splits:
        assert root is not None, "Omniglot needs files"
        everything = self._images(root, cache)
        characters = Characters(everything.class_names, root, self.split_seed)
        chosen = choose(self.split, characters, self.validation == "alphabets")
        validation = None
        if chosen.validation:
            validation = self._turned(everything, chosen.validation, self.test_rotations)
        return Splits(
            train=self._turned(everything, chosen.train, self.train_rotations),
            validation=validation,
            test=self._turned(everything, chosen.test, self.test_rotations),
            digest=DIGEST,
            license="MIT",
            source="Lake, Salakhutdinov and Tenenbaum, Science 350 (2015); "
            "github.com/brendenlake/omniglot",
            notes=(
                f"Omniglot at {self.image_size} x {self.image_size} by {self.resize} resizing; "
                f"ink is {self._ink}, paper {255 - self._ink}.",
                *chosen.notes,
                self._about_rotations(),
                "Braille/character01 contains one image twice (0192_03 and 0192_19).",
            ),
        )

    def verify(self, root: Path | None) -> str:
        assert root is not None, "Omniglot needs files"
        for part in PARTS:
            read_part(root, part)
        return (
            f"{' and '.join(part.file for part in PARTS)} in '{root}': every path and pixel of "
            f"{sum(part.characters for part in PARTS)} characters x {DRAWERS} drawings is as "
            f"published (digest {DIGEST[:16]}..)."
        )

    def download(self, target: Path) -> None:
        for part in PARTS:
            download_file(BASE_URL + part.file, target / part.file, md5=part.md5)

    @property
    def _ink(self) -> int:
        return 255 if self.ink == "white" else 0

    def _images(self, root: Path, cache: Path) -> LabeledImages:
        """All characters, decoded; one file in the cache for each size and resize mode."""

        def build() -> Decoded:
            characters, images = read_all(root, self.image_size, self.resize)
            return Decoded(images, {"characters": characters})

        key = {
            "format": 2,
            "archives": [file_sha256(root / part.file, part.expected) for part in PARTS],
            "size": self.image_size,
            "resize": self.resize,
        }
        decoded = cached(cache, f"omniglot-{self.image_size}-{self.resize}", key, build)
        names = decoded.meta["characters"]  # and the numbers of their files
        alphabets = [name.partition("/")[0] for name in names]
        family_names = tuple(dict.fromkeys(alphabets))
        number = {alphabet: i for i, alphabet in enumerate(family_names)}
        return LabeledImages(
            images=decoded.images if self.ink == "white" else 255 - decoded.images,
            counts=np.full(len(names), DRAWERS, np.int64),
            class_names=tuple(names),
            families=np.array([number[alphabet] for alphabet in alphabets], np.int64),
            family_names=family_names,
            order=hashed_order(names) if self.order == "hashed" else np.empty(0, np.int64),
        )

    def _turned(
        self, everything: LabeledImages, classes: tuple[int, ...], rotations: bool
    ) -> LabeledImages:
        images = select_classes(everything, classes)
        return with_rotations(images, separate_groups=self.twins) if rotations else images

    def _about_rotations(self) -> str:
        turned = [
            name
            for name, on in (
                ("training", self.train_rotations),
                ("validation and test", self.test_rotations),
            )
            if on
        ]
        if not turned:
            return "No rotated classes."
        meet = "may" if self.twins else "never"
        return (
            f"Quarter turns are classes of their own in {', '.join(turned)}; "
            f"two of one character {meet} share an episode."
        )
