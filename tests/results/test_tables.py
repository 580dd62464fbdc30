"""Tables of numbers: exact, whole or not there, and open to pandas."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas
import pytest

from fewshot_bench.errors import ConfigError, RecordError
from fewshot_bench.results.record import read_table, write_atomically, write_table

HARD = [0.1 + 0.2, 1 / 3, 5e-324, -1.7976931348623157e308, 0.0]


def test_numbers_come_back_to_the_last_bit(tmp_path: Path) -> None:
    single = np.array([0.1, 1 / 3, 2 / 3, 1e-30, 7], dtype=np.float32)
    columns = {"hard": HARD, "array": np.array(HARD), "single": single, "whole": [1, 2, 3, 4, 5]}
    write_table(tmp_path / "t.csv", columns)
    table = read_table(tmp_path / "t.csv")
    assert list(table) == list(columns)
    for name, values in columns.items():
        assert table[name].tolist() == list(values)


def test_a_missing_number_is_an_empty_cell(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", {"a": [1.5, None], "b": [None, 2]})
    assert (tmp_path / "t.csv").read_text() == "a,b\n1.5,\n,2\n"
    table = read_table(tmp_path / "t.csv")
    np.testing.assert_array_equal(table["a"], [1.5, np.nan])


def test_only_the_columns_that_are_wanted(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", {"a": [1, 2], "b": ["word", 3], "c": [4.5, None]})
    table = read_table(tmp_path / "t.csv", ["c", "a", "d"])
    assert list(table) == ["a", "c"]
    np.testing.assert_array_equal(table["c"], [4.5, np.nan])
    with pytest.raises(RecordError, match=r"is (missing|damaged)"):
        read_table(tmp_path / "t.csv", ["b"])


@pytest.mark.parametrize(
    "content",
    ['"a, b",c\n1,2\n3,\n', '"a, b",c\r\n1,2\r\n3,""\r\n', '"a, b",c\n"1",2\n\n3,'],
    ids=["a quoted name", "lines of Windows", "a quoted number and an empty line"],
)
def test_other_ways_to_write_a_table(content: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(content.encode())
    table = read_table(tmp_path / "t.csv")
    assert list(table) == ["a, b", "c"]
    assert table["a, b"].tolist() == [1, 3]
    np.testing.assert_array_equal(table["c"], [2, np.nan])


def test_a_column_of_one_missing_number(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", {"a": [1, None]})
    np.testing.assert_array_equal(read_table(tmp_path / "t.csv")["a"], [1, np.nan])


def test_a_table_without_rows(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", {"a": [], "b": []})
    assert {n: len(c) for n, c in read_table(tmp_path / "t.csv").items()} == {"a": 0, "b": 0}


def test_pandas_opens_it(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", {"episode": np.arange(5), "accuracy": HARD})
    frame = pandas.read_csv(tmp_path / "t.csv")
    np.testing.assert_allclose(frame["accuracy"], HARD, rtol=1e-15)
    assert frame["episode"].dtype == np.int64


def test_columns_of_different_lengths_write_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shorter"):
        write_table(tmp_path / "t.csv", {"a": [1, 2], "b": [1]})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.txt"
    write_atomically(path, "old")

    def full(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ConfigError, match=r"cannot write .*No space left.*--runs-dir"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "content",
    [b"", b"a,b\n1,2\n3\n", b"a\nword\n", b"\xff\xfe\x00", b"a\n" + b"1" * 200_000],
    ids=["empty", "a short row", "words", "no text", "a huge cell"],
)
def test_a_damaged_table_is_a_record_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(RecordError, match=r"t\.csv' is (damaged|missing)"):
        read_table(tmp_path / "t.csv")


def test_a_missing_table_is_a_record_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"is (missing|damaged)"):
        read_table(tmp_path / "none.csv")
