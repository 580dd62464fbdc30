"""Class-disjoint splits by seed and from files."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot_bench.data.images import LabeledImages
from fewshot_bench.data.splits import (
    SPLITS,
    check_lists,
    parse_split,
    random_splits,
    read_split_file,
    select_classes,
)
from fewshot_bench.errors import ConfigError, DataError

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)


@given(st.integers(10, 60), st.integers(0, 5), st.data())
def test_splits_by_seed_are_disjoint_and_complete(n: int, seed: int, data: st.DataObject) -> None:
    classes = [f"class {i}" for i in range(n)]
    bundle = data.draw(st.lists(st.sampled_from(classes), max_size=2))
    lists = random_splits(classes, (0.16, 0.2), seed, [bundle] if bundle else [])
    everything = [name for split in SPLITS for name in lists[split]]
    assert sorted(everything) == sorted(classes)
    assert len(lists["test"]) <= round(0.2 * n)
    assert sum(any(name in lists[split] for name in bundle) for split in SPLITS) <= 1


def test_splits_by_seed_have_the_size_asked_for_and_repeat() -> None:
    classes = [f"class {i}" for i in range(100)]
    lists = random_splits(classes, (0.16, 0.2), 0)
    assert [len(lists[split]) for split in SPLITS] == [64, 16, 20]
    assert random_splits(classes[::-1], (0.16, 0.2), 0) == lists
    assert random_splits(classes, (0.16, 0.2), 1) != lists


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.0, 0.0)])
def test_splits_by_seed_need_training_and_test_classes(shares: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="leave no class"):
        random_splits(["a", "b"], shares, 0)


@given(st.lists(NAMES, min_size=2, max_size=12, unique=True), st.data())
def test_every_format_gives_back_what_was_written(names: list[str], data: st.DataObject) -> None:
    middle = data.draw(st.integers(1, len(names) - 1))
    kept = data.draw(st.integers(0, middle - 1))
    lists = {
        "train": tuple(names[kept:middle]),
        "validation": tuple(names[:kept]),
        "test": tuple(names[middle:]),
    }
    table = json.dumps(lists)
    assert parse_split(table, ".json", "x") == lists
    # A list of JSON strings is a list of TOML strings, but for the escape of U+007F.
    toml = "\n".join(
        f"{split} = {json.dumps(labels, ensure_ascii=False)}" for split, labels in lists.items()
    )
    assert parse_split(toml, ".toml", "x") == lists
    file = io.StringIO(newline="")
    rows = csv.writer(file)
    rows.writerow(["class", "split"])
    rows.writerows((name, split) for split, labels in lists.items() for name in labels)
    assert parse_split(file.getvalue(), ".csv", "x") == lists


@given(st.text(max_size=60), st.sampled_from([".toml", ".json", ".csv", ".txt"]))
def test_any_other_text_is_one_clear_error(text: str, suffix: str) -> None:
    with pytest.raises(DataError, match="split file 'my file'"):
        parse_split(text, suffix, "my file")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"train": ["a"], "tset": ["b"]}', "unknown split 'tset'"),
        ('{"train": ["a", "b"], "test": ["b"]}', "'b' is in train and again in test"),
        ('{"train": ["a"], "test": []}', "no class in test"),
        ('{"train": "a", "test": ["b"]}', "'train' is not a list"),
        ('{"train": [1], "test": ["b"]}', "'train' is not a list"),
        ("[" * 100_000, "split file"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_split(text, ".json", "x")


def test_val_is_validation_and_unknown_classes_are_named() -> None:
    lists = parse_split('train = ["a"]\nval = ["b"]\ntest = ["c"]', ".toml", "x")
    assert lists["validation"] == ("b",)
    check_lists(lists, "abc", "x")
    with pytest.raises(DataError, match="the data have no class 'c'"):
        check_lists(lists, "ab", "x")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.toml"):
        read_split_file(tmp_path / "none.toml")


def test_take_keeps_images_with_their_class() -> None:
    images = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)
    labeled = LabeledImages(
        images, np.array([1, 2, 3, 4]), tuple("abcd"), groups=np.array([0, 0, 3, 3])
    )
    some = select_classes(labeled, [3, 1])
    assert some.class_names == ("b", "d")
    assert some.images.ravel().tolist() == [1, 2, 6, 7, 8, 9]
    assert some.groups.tolist() == [0, 3]
    assert np.shares_memory(
        select_classes(labeled, [1, 2]).images, images
    )  # neighbors are not copied
