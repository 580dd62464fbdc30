"""Mini-ImageNet, on a stand-in of its layout: the numbers of classes are real, images are not."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsb_mini_imagenet.mini_imagenet import PARTS, MiniImageNet, read_lists
from PIL import Image

import fewshot_bench
from fewshot_bench.errors import DataError
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.testing.suites import suite

EACH = 3


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A gray value for each class; images of several sizes, in two folders."""
    root, lists = tmp_path / "mini-imagenet", tmp_path / "splits" / "miniimagenet_ravi"
    lists.mkdir(parents=True)
    gray = 0
    for part, classes in PARTS.items():
        rows = []
        for c in range(classes):
            for i in range(EACH):
                name, label = f"n{part}{c:03d}{i:08d}.jpg", f"n{part}{c:03d}"
                folder = root / "images" / str(c % 2)
                folder.mkdir(parents=True, exist_ok=True)
                pixels = np.full((10 + i, 12, 3), 2 * gray, np.uint8)
                Image.fromarray(pixels).save(folder / name)
                rows.append((name, label))
            gray += 1
        with (lists / f"{part}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("filename", "label"), *reversed(rows)])
    return root


def test_images_are_those_of_the_lists(root: Path, tmp_path: Path) -> None:
    data = MiniImageNet(image_size=8)
    splits = data.load(root, tmp_path / "cache")
    gray = 0
    for images, (part, classes) in zip(
        (splits.train, splits.validation, splits.test), PARTS.items(), strict=True
    ):
        assert images is not None
        assert images.class_names == tuple(f"n{part}{c:03d}" for c in range(classes))
        assert images.counts.tolist() == [EACH] * classes
        assert images.image_shape == (3, 8, 8)
        shown = images.images.reshape(classes, EACH, -1)[:, :, 0].astype(int)
        assert (abs(shown - 2 * np.arange(gray, gray + classes)[:, None]) <= 1).all()  # JPEG
        gray += classes
    assert data.load(root, tmp_path / "cache").digest == splits.digest
    assert "all 300 images" in data.verify(root)


def damage(root: Path, what: Callable[[Path, Path], Any]) -> None:
    what(root, root.parent / "splits" / "miniimagenet_ravi")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r, s: next(r.rglob("ntest*")).unlink(), "1 of 300 images are missing"),
        (lambda r, s: (s / "val.csv").unlink(), "cannot read .*val.csv"),
        (lambda r, s: (s / "val.csv").write_text("filename,label\n"), "lists 0 classes; .*has 16"),
        (lambda r, s: (s / "val.csv").write_text("a,b\nc,d\n"), "filename,label lines"),
        (lambda r, s: s.rename(r / "away"), "needs the lists train.csv"),
        (lambda r, s: next(r.rglob("ntest*")).write_bytes(b"x"), "is not a PNG or JPEG image"),
    ],
)
def test_what_is_wrong_is_one_clear_line(
    spoil: Any, message: str, root: Path, tmp_path: Path
) -> None:
    damage(root, spoil)
    with pytest.raises(DataError, match=message) as caught:
        MiniImageNet(image_size=8).load(root, tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_the_published_lists_are_read(fsb_data: Path) -> None:
    listed = read_lists(fsb_data / "mini-imagenet")
    assert {part: len(rows) for part, rows in listed.items()} == {
        "train": 38_400, "val": 9_600, "test": 12_000,
    }  # fmt: skip


def test_a_run_on_it(root: Path, tmp_path: Path) -> None:
    record = fewshot_bench.run(
        "nearest-centroid", dataset="mini-imagenet", data_root=str(root), image_size=8, way=5,
        shot=1, query=1, episodes=3, runs_dir=str(tmp_path / "runs"), cache_dir=str(tmp_path / "c"),
    )  # fmt: skip
    assert record["status"] == "completed"
    assert record["split"] == "ravi"


def test_the_conformance_suite_passes(root: Path) -> None:
    found = suite(Registry.discover(), "mini-imagenet", data_root=str(root))
    outcomes = found.run()
    assert [(o.id, o.message) for o in outcomes if o.status == "failed"] == []
    assert any(o.status == "passed" for o in outcomes)
