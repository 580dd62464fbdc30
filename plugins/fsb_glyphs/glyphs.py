"""Glyphs: handwritten-like characters that are drawn, not read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch

from fewshot_bench.data import Dataset, Decoded, LabeledImages, Splits, cached, with_rotations
from fewshot_bench.errors import ConfigError
from fsb_glyphs.drawing import draw
from fsb_glyphs.strokes import alphabet

VERSION = 1  # raise it when the drawing changes: cached images of another version are not used
LARGEST = 2_000_000  # images


class Glyphs(Dataset):
    """Procedural characters; needs no file and no network.

    A class is a stroke program; its images are noisy redrawings (affine map, control points,
    pen width). Families are alphabets, which share a style; no alphabet is in two splits. A split
    depends only on its own class count, the alphabet size and the seed. Ink is 255, paper 0.

    Arguments:
        train_classes, validation_classes, test_classes: characters of each split, before
            rotations; 0 validation classes: no validation.
        images_per_class: drawings of each character.
        image_size: side in pixels.
        alphabet_size: characters per alphabet.
        glyph_seed: another seed, other scripts.
        train_rotations, test_rotations: quarter turns are further classes.
        twins: let two rotations of one character meet in an episode.
    """

    splits = ("generated",)
    family = "characters"
    needs_files = False

    def __init__(
        self,
        *,
        train_classes: Annotated[int, "characters to train on, before rotations"] = 300,
        validation_classes: Annotated[int, "characters to validate on; 0: none"] = 50,
        test_classes: Annotated[int, "characters to test on"] = 100,
        images_per_class: Annotated[int, "drawings of each character"] = 20,
        image_size: Annotated[int, "side of the images in pixels"] = 28,
        alphabet_size: Annotated[int, "characters per alphabet"] = 25,
        glyph_seed: Annotated[int, "another seed, other scripts"] = 0,
        train_rotations: Annotated[bool, "quarter turns are further training classes"] = True,
        test_rotations: Annotated[bool, "quarter turns are further test classes"] = False,
        twins: Annotated[bool, "let two rotations of one character share an episode"] = False,
    ) -> None:
        self.classes = {
            "train": train_classes,
            "validation": validation_classes,
            "test": test_classes,
        }
        for name, value, least in (
            ("train-classes", train_classes, 2),
            ("validation-classes", validation_classes, 0),
            ("test-classes", test_classes, 2),
            ("images-per-class", images_per_class, 2),
            ("alphabet-size", alphabet_size, 1),
        ):
            if value < least:
                raise ConfigError(f"--{name} {value}: it has to be at least {least}.")
        if not 8 <= image_size <= 256:
            raise ConfigError(f"--image-size {image_size}: glyphs are drawn at 8 to 256 pixels.")
        if sum(self.classes.values()) * images_per_class > LARGEST:
            raise ConfigError(
                f"{sum(self.classes.values())} classes of {images_per_class} images: at most "
                f"{LARGEST} images are drawn; lower the class counts or --images-per-class."
            )
        self.images_per_class, self.image_size = images_per_class, image_size
        self.alphabet_size, self.glyph_seed = alphabet_size, glyph_seed
        self.train_rotations, self.test_rotations = train_rotations, test_rotations
        self.twins = twins

    def load(self, root: Path | None, cache: Path) -> Splits:
        key = {
            "version": VERSION,
            "classes": self.classes,
            "images": self.images_per_class,
            "size": self.image_size,
            "alphabet": self.alphabet_size,
            "seed": self.glyph_seed,
        }
        decoded = cached(cache, f"glyphs-{self.image_size}", key, self._draw)
        parts: dict[str, LabeledImages] = {}
        start = 0
        for split, classes in self.classes.items():
            stop = start + classes * self.images_per_class
            rotations = self.train_rotations if split == "train" else self.test_rotations
            labeled = self._labeled(split, decoded.images[start:stop])
            turned = rotations and classes > 0
            parts[split] = (
                with_rotations(labeled, separate_groups=self.twins) if turned else labeled
            )
            start = stop
        return Splits(
            train=parts["train"],
            validation=parts["validation"] if self.classes["validation"] else None,
            test=parts["test"],
            digest=decoded.meta["digest"],
            license="MIT",
            source="drawn by fewshot-bench",
            notes=(
                f"Glyphs are synthetic characters of {self.image_size} x {self.image_size}, not "
                "handwriting of people; ink is 255, paper 0.",
            ),
        )

    def verify(self, root: Path | None) -> str:
        digest = self._draw().meta["digest"]
        return f"glyphs were drawn anew with seed {self.glyph_seed}: content sha256 {digest}."

    def _draw(self) -> Decoded:
        """All splits one after the other, without rotations."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # many small operations: on a busy machine two took 6 times longer
        try:
            images = np.concatenate(
                [
                    draw(
                        alphabet(self.glyph_seed, name, size),
                        self.images_per_class,
                        self.image_size,
                        self.glyph_seed,
                        name,
                    )
                    for split in self.classes
                    for name, size in self._alphabets(split)
                ]
            )
        finally:
            torch.set_num_threads(threads)
        return Decoded(images, {"digest": hashlib.sha256(images.tobytes()).hexdigest()})

    def _alphabets(self, split: str) -> list[tuple[str, int]]:
        """Names and sizes of the alphabets of a split; the last may be smaller."""
        classes, size = self.classes[split], self.alphabet_size
        return [
            (f"{split}-{i:02d}", min(size, classes - start))
            for i, start in enumerate(range(0, classes, size))
        ]

    def _labeled(self, split: str, images: np.ndarray[Any, np.dtype[np.uint8]]) -> LabeledImages:
        alphabets = self._alphabets(split)
        sizes = [size for _, size in alphabets]
        return LabeledImages(
            images=images,
            counts=np.full(sum(sizes), self.images_per_class, np.int64),
            class_names=tuple(
                f"{name}/character{i:02d}" for name, size in alphabets for i in range(1, size + 1)
            ),
            families=np.repeat(np.arange(len(sizes)), sizes),
            family_names=tuple(name for name, _ in alphabets),
        )
