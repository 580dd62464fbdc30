"""Folders of tiny drawn pictures, and a run on them that takes a second."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE, EACH = 16, 6
SETTINGS: dict[str, Any] = {
    "way": 2, "shot": 1, "query": 2, "train_way": 2, "train_query": 2, "steps": 1,
    "task_batch": 1, "validate_every": 1, "validation_episodes": 2, "episodes": 4,
    "backbone_channels": 2, "runs_dir": "runs", "color": "gray", "image_size": SIDE,
}  # fmt: skip
TRAIN, VALIDATION, TEST = ("ant", "bee", "cat"), ("dog", "eel"), ("fox", "gnu", "hen")


def picture(name: str, number: int, side: int = SIDE) -> Image.Image:
    """The drawing of this number of a class of this name: always the same, like no other."""
    pixels = np.random.default_rng([*name.encode(), number]).integers(0, 256, (side, side))
    return Image.fromarray(pixels.astype(np.uint8))


def draw(folder: Path, names: Iterable[str], each: int = EACH) -> Path:
    """A folder with a folder of pictures for each class."""
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(each):
            picture(name, number).save(folder / name / f"{number}.png")
    return folder


def split(
    path: Path,
    train: Iterable[str] = TRAIN,
    validation: Iterable[str] = VALIDATION,
    test: Iterable[str] = TEST,
) -> str:
    """A split file."""
    parts = {"train": train, "validation": validation, "test": test}
    rows = [f"{name},{part}" for part, names in parts.items() for name in names]
    path.write_text("class,split\n" + "\n".join(rows) + "\n", "utf-8")
    return str(path)
