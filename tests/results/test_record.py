"""Records: written whole, checked when read."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fewshot_bench.errors import ConfigError, RecordError
from fewshot_bench.results.record import (
    RECORD,
    SCHEMA_VERSION,
    new_run_folder,
    read_record,
    write_record,
)
from fewshot_bench.results.record.files import TICKS
from fewshot_bench.results.record.model import Record, Timing
from fewshot_bench.results.runs import Run, age
from tests.results.made_up_runs import made_up

# {key: whether a record has to have it}
KEYS = {
    name: any(
        name == field.encode_name and field.required for field in msgspec.structs.fields(Record)
    )
    for name in Record.__struct_fields__
}


def put(folder: Path, record: Any) -> None:
    """Write a record as it is."""
    folder.mkdir(exist_ok=True)
    (folder / RECORD).write_text(json.dumps(record), "utf-8")


def test_a_record_comes_back(tmp_path: Path) -> None:
    record = made_up("m", [0.1 + 0.2, 1 / 3])
    write_record(tmp_path / "run", record)
    found = read_record(tmp_path / "run")
    assert set(found) == set(record) == set(KEYS)
    assert {key for key in found if found[key] != record[key]} == {"environment"}
    assert set(found["environment"].values()) == {None}


def test_a_number_that_is_not_finite_becomes_null(tmp_path: Path) -> None:
    timing = {"step_ms": {"median": math.nan}, "phases": {"sample": math.inf}, "adapt_ms": 1.5}
    write_record(tmp_path, made_up("m", [0.5, 0.6], timing=timing))
    timing = json.loads((tmp_path / RECORD).read_text())["timing"]
    assert timing["step_ms"] == {"median": None, "p95": None}
    assert (timing["phases"], timing["adapt_ms"]) == ({"sample": None}, 1.5)


def test_numbers_of_numpy_are_written_as_json_has_them(tmp_path: Path) -> None:
    counts = np.array([7, 5])
    timing = {"adapt_ms": np.float64(0.1), "warmup_steps": counts[0]}
    write_record(tmp_path, made_up("m", [0.5, 0.6], timing=timing))
    found = read_record(tmp_path)["timing"]
    assert (found["adapt_ms"], found["warmup_steps"]) == (0.1, 7)


def test_a_record_that_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r'test\.episodes: expected an integer, got "many"'):
        write_record(tmp_path / "run", made_up("m", [0.5], test={"episodes": "many"}))
    assert not (tmp_path / "run").exists()


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
    (tmp_path / RECORD).write_text(content)
    with pytest.raises(RecordError, match=message):
        read_record(tmp_path)


def test_a_record_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecordError, match="is damaged"):
        read_record(tmp_path)


def test_a_folder_without_a_record(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"has no record\.json; is it the folder of a run"):
        read_record(tmp_path)


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_key_and_one_of_another_type(key: str, tmp_path: Path) -> None:
    record: dict[str, Any] = made_up("m", [0.5, 0.6])
    put(tmp_path, {name: value for name, value in record.items() if name != key})
    if key == "schema_version":
        with pytest.raises(RecordError, match="has schema version None"):
            read_record(tmp_path)
        return
    if KEYS[key]:
        with pytest.raises(RecordError, match=f"'{key}' is missing"):
            read_record(tmp_path)
    else:
        assert read_record(tmp_path)[key] == record[key]
    put(tmp_path, record | {key: True})
    with pytest.raises(RecordError, match=f"{key}: expected .*, got true"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("test.accuracy", "high", 'test.accuracy: expected a number, got "high"'),
        ("test.accuracy", 7, "test.accuracy: expected a number <= 1.0, got 7"),
        ("test.half_width", -1, "test.half_width: expected a number >= 0.0, got -1"),
        ("test.half_width", ..., "test: 'half_width' is missing"),
        ("test.metrics", {"f1": {"mean": []}},
         "test.metrics.*.mean: expected a number or null, got a list"),
        ("task.way", "5", 'task.way: expected an integer, got "5"'),
        ("task.shot", 1.0, "task.shot: expected an integer, got 1.0"),
        ("timing.step_ms", 3, "timing.step_ms: expected an object or null, got 3"),
        ("notes", [{}], "notes.0: expected text, got {}"),
        ("plugins", [7], "plugins.0: expected an object, got 7"),
        ("config.dataset_options", ..., "config: 'dataset_options' is missing"),
        ("config.metrics", 3, "config.metrics: expected a list, got 3"),
        ("id", "../x", 'id: expected the name of a folder, got "../x"'),
        ("id", "x\n", 'id: expected the name of a folder, got "x\\n"'),
        ("id", "x" * 256, "id: expected text of length <= 255"),
        ("part", "train", 'part: invalid enum value'),
    ],
)  # fmt: skip
def test_what_was_expected_what_was_found_and_where(
    path: str, value: Any, problem: str, tmp_path: Path
) -> None:
    record = json.loads(json.dumps(made_up("m", [0.5, 0.6])))
    *outer, last = path.split(".")
    place = record
    for key in outer:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    put(tmp_path, record)
    with pytest.raises(RecordError) as raised:
        read_record(tmp_path)
    assert str(raised.value).startswith(f"'{tmp_path / RECORD}': {problem}")


def test_a_record_of_version_1_has_keys_in_british_spelling(tmp_path: Path) -> None:
    record = made_up("m", [0.5, 0.6], timing=Timing(phases={"optimizer": 1.5}).to_dict())
    config = {**record["config"], "labeled_fraction": 0.5, "sources": {"labeled_fraction": "user"}}
    text = json.dumps(record | {"schema_version": 1, "config": config, "part": None})
    for old, new in (("license", "licence"), ("labeled", "labelled"), ("optimizer", "optimiser")):
        assert new in text or old in text
        text = text.replace(old, new)
    (tmp_path / RECORD).write_text(text)
    found = read_record(tmp_path)
    assert (found["dataset_license"], found["part"]) == ("CC0", "test")
    assert found["schema_version"] == SCHEMA_VERSION
    assert found["task"] == record["task"]
    assert found["config"] == config
    assert found["timing"]["phases"] == {"optimizer": 1.5}


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
