"""The class ids of a run's episodes have names, also if the data are gone.

``classes.csv`` in the folder of every run and every evaluation gives for each class its split,
name, group, family, number of images and a digest of them.
"""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fewshot_bench
from fewshot_bench.config.resolve import configure
from fewshot_bench.data.images import ClassContent, LabeledImages, Splits, content_of_splits
from fewshot_bench.errors import RecordError
from fewshot_bench.figures import Request
from fewshot_bench.figures.classes import names_of
from fewshot_bench.results.record import CLASSES, read_classes, read_table, write_classes
from fewshot_bench.results.runs import Run
from fewshot_bench.runs.context import RunContext
from tests.honesty.small import folder_of, small

HOSTILE = (
    "a,b", 'say "x"', "two\nlines", "\x1b[2J", "=1+1", " blank ", "\udc80 of a file", "é", "",
)  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plain(cache: Path) -> dict[str, Any]:
    settings = small(cache, "nearest-centroid")
    return {n: v for n, v in settings.items() if n not in ("steps", "task_batch")}


def test_the_classes_of_a_run_and_of_its_evaluation(home: Path, data_cache: Path) -> None:
    """Every id in ``episodes.csv`` is in ``classes.csv``, with the name that the data set has for
    it.
    """
    settings = plain(data_cache) | {"test_rotations": True}
    record = fewshot_bench.run("nearest-centroid", **settings)
    config = configure("nearest-centroid", **settings)
    splits = RunContext(config).data.splits
    other = fewshot_bench.evaluate(folder_of(record), test_classes=9, episode_seed=3)
    for found, names in ((record, splits.test.class_names), (other, None)):
        folder = folder_of(found)
        classes = read_classes(folder)
        assert names is None or tuple(c.name for c in classes) == names
        episodes = read_table(folder / "episodes.csv")
        ids = np.stack([episodes[f"class_{c}"] for c in range(3)]).astype(int)
        groups = np.stack([episodes[f"group_{c}"] for c in range(3)]).astype(int)
        assert ids.max() < len(classes)
        assert all(classes[i].group == g for i, g in zip(ids.flat, groups.flat, strict=True))
    assert len(read_classes(folder_of(other))) == 36
    assert len(read_classes(folder_of(record), "train")) == 80
    assert len(read_classes(folder_of(record), "validation")) == 32
    first = read_classes(folder_of(record))[0]
    assert (first.images, first.family) == (20, "test-00")
    pixels = np.ascontiguousarray(splits.test.images[:20])
    assert first.sha256 == hashlib.sha256(pixels.tobytes()).hexdigest()


def test_names_where_the_data_are_gone(home: Path, data_cache: Path) -> None:
    """The images and the plugin are deleted: a figure of classes still has names."""
    record = fewshot_bench.run("nearest-centroid", **plain(data_cache))
    record["dataset"] = record["config"]["dataset"] = "not-installed"
    ask = Request()
    names = names_of(Run(folder_of(record), record), ask)
    assert names is not None
    assert names.classes[0] == "test-00/character01"
    assert not ask.left_out


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda lines: lines[:-1], "does not name all classes"),
        (lambda lines: [lines[0].replace("name", "nom"), *lines[1:]], "no column 'name'"),
        (lambda lines: [*lines, lines[-1]], "are not 0, 1"),
        (lambda lines: [*lines[:-1], lines[-1].rpartition(",")[0]], "damaged"),
        (lambda lines: [*lines[:-1], lines[-1].replace("test,7", "test,x")], "damaged"),
        (lambda lines: [*lines, "test,8," + "x" * 200_000], "damaged"),
    ],
)
def test_damaged_names_are_not_used(spoil: Any, told: str, home: Path, data_cache: Path) -> None:
    """A truncated, duplicated or damaged ``classes.csv`` is not used, and a message says so."""
    record = fewshot_bench.run("nearest-centroid", **plain(data_cache))
    path = folder_of(record) / CLASSES
    path.write_text("\n".join(spoil(path.read_text("utf-8").splitlines())) + "\n", "utf-8")
    ask = Request()
    assert names_of(Run(folder_of(record), record), ask) is None
    (line,) = ask.left_out
    assert told in line


def test_hostile_names_survive_writing_and_reading(tmp_path: Path) -> None:
    """Names with commas, quotes, line breaks, escape sequences or invalid text do no harm."""
    classes = tuple(
        ClassContent("test", i, name, i, name, 3, "0" * 64) for i, name in enumerate(HOSTILE)
    )
    write_classes(tmp_path, classes)
    back = [c.name for c in read_classes(tmp_path)]
    assert back == [n.replace("\x1b", "\\x1b").replace("\udc80", "\\udc80") for n in HOSTILE]
    with (tmp_path / CLASSES).open(encoding="utf-8", newline="") as file:
        assert len(list(csv.reader(file))) == 1 + len(HOSTILE)
    assert "\x1b" not in (tmp_path / CLASSES).read_text("utf-8")
    with pytest.raises(RecordError, match="is missing"):
        read_classes(tmp_path / "nowhere")


def splits(**changes: Any) -> Splits:
    images = np.arange(6 * 4, dtype=np.uint8).reshape(6, 1, 2, 2)
    given = {"images": images, "counts": np.array([3, 3]), "class_names": ("a", "b")} | changes
    part = LabeledImages(**given)
    return Splits(part, None, part, "d" * 64, "CC0", "made up")


@pytest.mark.parametrize(
    "changes",
    [
        {"images": np.arange(1, 25, dtype=np.uint8).reshape(6, 1, 2, 2)},
        {"images": np.arange(24, dtype=np.uint8).reshape(6, 1, 1, 4)},
        {"counts": np.array([2, 4])},
        {"class_names": ("a", "c")},
        {"groups": np.array([0, 0])},
        {"families": np.array([0, 1]), "family_names": ("x", "y")},
    ],
)
def test_the_digest_covers_everything_an_episode_is_drawn_from(changes: dict[str, Any]) -> None:
    """A pixel, shape, count, name, group or family changes: the digest changes."""
    assert content_of_splits(splits()).sha256 == content_of_splits(splits()).sha256
    assert content_of_splits(splits(**changes)).sha256 != content_of_splits(splits()).sha256
