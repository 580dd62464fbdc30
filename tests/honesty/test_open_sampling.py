"""If some classes have a larger share of a test than others, the record and every table say so.

An open plan uses no image twice, so it continues with the large classes when the small ones are
used up. The record counts how evenly the classes are used (``test.class_use``), a note and the
caption of a table state it, and ``--sampling open-balanced`` uses every class equally often, with
fewer episodes.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fewshot_bench
from fewshot_bench.data.images import LabeledImages
from fewshot_bench.data.table import ClassTable
from fewshot_bench.episode import Task
from fewshot_bench.results.comparison import compare
from fewshot_bench.results.runs import load_runs
from fewshot_bench.results.sentences import accuracy_words
from fewshot_bench.results.stats import class_use, use_words
from fewshot_bench.sampling.base import ClosedSampler, Sampler
from fewshot_bench.sampling.open import BalancedOpenSampler, OpenSampler

TASK = Task(way=3, shot=1, query=1)
COUNTS = [4] * 9 + [400] * 3  # three classes of a hundred times as many images


def table_of(
    counts: list[int], groups: list[int] | None = None, families: list[int] | None = None
) -> ClassTable:
    empty = np.empty(0, np.int64)
    return ClassTable(
        LabeledImages(
            np.zeros((sum(counts), 1, 1, 1), np.uint8), np.array(counts),
            tuple(f"class{i}" for i in range(len(counts))),
            empty if groups is None else np.array(groups),
            empty if families is None else np.array(families),
        )
    )  # fmt: skip


def ids_of(sampler: Sampler, episodes: int | None = None) -> np.ndarray:
    count = sampler.length or episodes
    assert count is not None
    return sampler(torch.arange(count)).class_ids.numpy()


def test_use_of_classes_by_hand() -> None:
    """Of 8 classes in 6 places, one has 3, one 2 and one 1: shares of 1/2, 1/3 and 1/6 correspond
    to 36/14 classes, and the two most used have 5 of 6 places.
    """
    use = class_use(np.array([[0, 1], [0, 1], [0, 2]]), np.ones(8, np.int64))
    assert use == {
        "classes": 8, "used": 3, "effective": pytest.approx(36 / 14), "top": 2,
        "top_share": pytest.approx(5 / 6), "uneven": True,
    }  # fmt: skip
    turned = class_use(np.array([[0, 4], [1, 5]]), np.array([4, 4]))
    assert (turned["classes"], turned["effective"]) == (2, 2.0)  # turns of two drawings


def test_an_open_plan_over_unequal_classes_says_so() -> None:
    """Twelve classes, three of them a hundred times as large, are sampled: the open plan gives
    these most places and the sentence says it; closed and balanced plans are even.
    """
    table = table_of(COUNTS)
    one = np.ones(len(COUNTS), np.int64)
    uneven = class_use(ids_of(OpenSampler(table, TASK, 0)), one)
    assert uneven["uneven"]
    assert uneven["top_share"] > 0.9
    words = use_words(uneven, "open")
    assert words is not None
    assert "3 of 12 fill" in words
    assert "--sampling open-balanced" in words
    for even in (
        ids_of(BalancedOpenSampler(table, TASK, 0)),
        ids_of(ClosedSampler(table, TASK, 0), 60),
    ):
        assert use_words(class_use(even, one), "open") is None


@pytest.mark.parametrize("seed", range(5))
def test_a_balanced_plan_uses_every_class_equally(seed: int) -> None:
    """A balanced plan is drawn over unequal classes: at each point the counts of two classes differ
    by one at most, no image is used twice, and the plan ends when the smallest class is used up.
    """
    counts = [7, 9, 30, 6, 200, 11, 8]
    sampler = BalancedOpenSampler(table_of(counts), TASK, seed)
    indices = sampler(torch.arange(sampler.length or 0))
    uses = np.zeros(len(counts), np.int64)
    for classes in indices.class_ids.numpy():
        assert len(set(classes)) == 3
        uses[classes] += 1
        assert uses.max() - uses.min() <= 1
    assert uses.max() == 3  # of 6 images, 2 at a time
    assert sampler.length == 7 * 3 // 3
    images = indices.images().flatten()
    assert len(images.unique()) == len(images)
    again = BalancedOpenSampler(table_of(counts), TASK, seed)
    assert torch.equal(again(torch.arange(sampler.length)).rows(), indices.rows())


def test_a_balanced_plan_within_families_and_groups() -> None:
    """Families of unequal size and classes that share images are sampled: every episode is from one
    family, no group is used more than the smallest class allows, and rotations count as one class.
    """
    groups = np.repeat(np.arange(9), 2)  # two turns of each
    families = np.repeat([0] * 3 + [1] * 6, 2)
    counts = np.repeat([5, 8, 20, 6, 6, 40, 9, 4, 7], 2).tolist()
    table = table_of(counts, groups.tolist(), families.tolist())
    ids = ids_of(BalancedOpenSampler(table, TASK, 1, within_family=True))
    assert all(len(set(families[row])) == 1 for row in ids)
    assert all(len(set(groups[row])) == 3 for row in ids)
    uses = np.bincount(groups[ids].ravel(), minlength=9)
    assert uses.max() <= 4 // 2
    assert (uses == 2).all()


def test_real_classes_of_unequal_size(fsb_data: Path) -> None:
    """The class sizes of Caltech-101 (31 to 800 images) are sampled in both ways: few classes have
    much of the open plan; the balanced one is even and has 101 times 15 places.
    """
    (archive,) = (fsb_data / "caltech101").glob("*.zip")
    with zipfile.ZipFile(archive) as opened:
        sizes = Counter(
            name.split("/")[-2] for name in opened.namelist() if name.endswith((".jpg", ".png"))
        )
    counts = sorted(sizes.values())
    table, task = table_of(counts), Task(way=5, shot=1, query=1)
    one = np.ones(len(counts), np.int64)
    plan, balanced = OpenSampler(table, task, 0), BalancedOpenSampler(table, task, 0)
    uneven, even = class_use(ids_of(plan), one), class_use(ids_of(balanced), one)
    assert uneven["uneven"]
    assert uneven["top_share"] > 0.45 > 0.3 > even["top_share"]
    assert even["effective"] == pytest.approx(len(counts), rel=0.01)
    assert balanced.length == len(counts) * (counts[0] // 2) // 5
    assert plan.length is not None
    assert balanced.length < plan.length


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder data set of unequal classes: 4 images of one half, 60 of the other."""
    from PIL import Image

    random = np.random.default_rng(0)
    for number in range(18):
        for image in range(60 if number % 2 == 0 else 4):
            path = tmp_path / "data" / f"class{number:02}" / f"{image}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = random.integers(0, 256, (6, 6), dtype=np.uint8)
            Image.fromarray(noise, "L").save(path)
    return tmp_path / "data"


def test_a_run_says_it_in_its_record_and_its_table(pictures: Path, tmp_path: Path) -> None:
    """``--sampling open`` and ``open-balanced`` are run on unequal classes: the first has a note
    and a caption, the second neither, and reports the number of episodes.
    """
    said: dict[str, Any] = {}
    for sampling in ("open", "open-balanced"):
        runs = tmp_path / sampling
        record = fewshot_bench.run(
            "nearest-centroid", dataset=f"folder:{pictures}", image_size=6, test_share=0.5,
            way=2, shot=1, query=1, sampling=sampling, episodes=10_000, runs_dir=str(runs),
            cache_dir=str(tmp_path / "cache"),
        )  # fmt: skip
        comparison = compare(load_runs([runs])[0])
        caption = " ".join(accuracy_words(comparison.tables[0], comparison))
        said[sampling] = (record, "unevenly" in " ".join(record["notes"]), "unevenly" in caption)
    record, noted, captioned = said["open"]
    assert record["test"]["class_use"]["uneven"]
    assert (noted, captioned) == (True, True)
    record, noted, captioned = said["open-balanced"]
    assert record["test"]["class_use"]["effective"] == record["test"]["class_use"]["classes"]
    assert (noted, captioned) == (False, False)
    assert any("episodes were requested" in note for note in record["notes"])
