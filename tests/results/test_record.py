"""Records: written whole, checked when read."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from fewshot_bench.errors import ConfigError, RecordError
from fewshot_bench.results.record.io import FILE, TICKS, new_run_folder, read_record, write_record
from fewshot_bench.results.record.schema import SCHEMA, SCHEMA_VERSION
from fewshot_bench.results.runs import Run, age
from tests.results.made_up_runs import made_up


def test_a_record_comes_back(tmp_path: Path) -> None:
    record = made_up("m", [0.1 + 0.2, 1 / 3])
    write_record(tmp_path / "run", record)
    younger = {key: None for key, entry in SCHEMA.items() if not entry.since_first}
    assert read_record(tmp_path / "run") == younger | record
    assert set(younger | record) == set(SCHEMA)


def test_a_number_that_is_not_finite_becomes_null(tmp_path: Path) -> None:
    timing = {"step_ms": {"median": math.nan}, "all": (math.inf, 1.5)}
    write_record(tmp_path, made_up("m", [0.5, 0.6], timing=timing))
    text = (tmp_path / FILE).read_text()
    assert json.loads(text)["timing"] == {"step_ms": {"median": None}, "all": [None, 1.5]}
    assert "NaN" not in text
    assert "Infinity" not in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is damaged"),
        ("{", "is damaged"),
        (json.dumps(made_up("m", [0.5, 0.6]))[:-40], "is damaged"),
        ("[1]", "is not a record"),
        ("null", "is not a record"),
        ("{}", "has schema version None"),
        (json.dumps({"schema_version": SCHEMA_VERSION + 1}), "Upgrade it to read the record"),
        (json.dumps({"schema_version": "1"}), "has schema version 1"),
    ],
)
def test_a_record_that_cannot_be_read(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(RecordError, match=message):
        read_record(tmp_path)


def test_a_record_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecordError, match="is damaged"):
        read_record(tmp_path)


def test_a_folder_without_a_record(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"has no record\.json; is it the folder of a run"):
        read_record(tmp_path)


FIRST = [key for key, entry in SCHEMA.items() if entry.since_first and key != "schema_version"]


@pytest.mark.parametrize("key", FIRST)
def test_a_missing_key_and_one_of_another_type_are_told(key: str, tmp_path: Path) -> None:
    record: dict[str, Any] = made_up("m", [0.5, 0.6])
    write_record(tmp_path, {name: value for name, value in record.items() if name != key})
    if SCHEMA[key].since_first:
        with pytest.raises(RecordError, match=f"lacks '{key}'"):
            read_record(tmp_path)
    else:  # a record from before the key
        assert read_record(tmp_path)[key] is None
    write_record(tmp_path, record | {key: True})
    with pytest.raises(RecordError, match=f"'{key}' is of the wrong type"):
        read_record(tmp_path)


def test_a_completed_test_without_its_numbers_is_told(tmp_path: Path) -> None:
    record = made_up("m", [0.5, 0.6])
    del record["test"]["half_width"]
    write_record(tmp_path, record)
    with pytest.raises(RecordError, match="'test' lacks 'half_width'"):
        read_record(tmp_path)


def test_runs_that_start_together_get_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.strftime", lambda *_: "20260101T000000")
    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(lambda _: new_run_folder(tmp_path / "runs", "m"), range(400)))
    assert len(set(folders)) == 400
    assert all(folder.is_dir() for folder in folders)


def test_names_sort_by_time_also_within_a_second(tmp_path: Path) -> None:
    made = [new_run_folder(tmp_path, "m").name for _ in range(20)]
    assert sorted(made) == made


def test_the_newest_is_that_of_the_later_time_whatever_its_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A fast machine makes two folders in one fraction of a second; the clock here moves on.
    monkeypatch.setattr("time.time_ns", count(1_767_225_600 * 10**9, 10**9 // TICKS + 1).__next__)
    made = [new_run_folder(tmp_path, stem).name for stem in "zaybxc" * 3]
    runs = [Run(tmp_path / name, {"id": name}) for name in made]
    for drawn in (runs[::-1], sorted(runs, key=lambda run: run.folder)):
        assert [run.folder.name for run in sorted(drawn, key=age)] == made


def test_a_runs_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write runs to .*--runs-dir"):
        new_run_folder(tmp_path / "runs", "m")
