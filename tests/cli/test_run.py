"""The command from end to end, on a small built-in data set."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fewshot_bench
from fewshot_bench.results.record import read_record, read_table
from tests.command_line import InProcess

SETTINGS: dict[str, Any] = {
    "image_size": 16,
    "train_classes": 12,
    "validation_classes": 12,
    "test_classes": 12,
    "train_way": 5,
    "task_batch": 2,
    "steps": 3,
    "validate_every": 2,
    "validation_episodes": 3,
    "episodes": 6,
    "shot": 1,
    "query": 3,
    "device": "cpu",
    "backbone_channels": 8,
}
TYPED = tuple(f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items())

WATCHER = """
import json
from fewshot_bench import hookimpl

@hookimpl
def register_observers():
    return {"watcher": "fake_watcher:Watcher"}

@hookimpl
def register_metrics():
    return {"share-of-first": "fake_watcher:share_of_first"}

def share_of_first(logits, target):
    return (logits.argmax(-1) == 0).double().mean(-1)

class Watcher:
    def __init__(self):
        self.seen = []
    @hookimpl
    def run_started(self, config):
        self.seen.append(["started", config["method"]])
    @hookimpl
    def train_logged(self, step):
        self.seen.append(["logged", step])
    @hookimpl
    def evaluation_finished(self, split, scores):
        self.seen.append([split, len(scores)])
    @hookimpl
    def run_finished(self, record):
        self.seen.append(["ended", record["status"]])
        with open("seen.json", "w") as file:
            json.dump(self.seen, file)
"""


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    """A record without what may differ between two equal runs."""
    record = json.loads(json.dumps(record))
    for name in ("id", "command"):
        del record[name]
    del record["config"]["runs_dir"], record["config"]["sources"]
    del record["environment"]["commit"]  # the checkout may be edited meanwhile
    record["training"] = {n: v for n, v in record["training"].items() if "seconds" not in n}
    record["timing"] = {n: record["timing"][n] for n in ("flops_per_step", "warmup_steps")}
    return record


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def printed(home: Path, fsb: InProcess) -> str:
    """What a run with --json prints."""
    return fsb("run", "protonet", *TYPED, "--json", at=home).succeeded().out


def test_json_prints_the_record_and_nothing_else(printed: str, home: Path) -> None:
    record = json.loads(printed)
    assert printed == (home / "runs" / record["id"] / "record.json").read_text("utf-8")
    assert read_record(home / "runs" / record["id"]) == record
    assert record["status"] == "completed"
    assert record["plugin"]["distribution"] == "fewshot-bench"
    assert record["test"]["episodes"] == 6
    assert record["training"]["steps"] == 3
    episodes = read_table(home / "runs" / record["id"] / "episodes.csv")
    assert episodes["accuracy"].mean() == pytest.approx(record["test"]["accuracy"], abs=1e-12)


def test_the_same_seeds_give_the_same_numbers_here_and_from_python(
    printed: str, home: Path, tmp_path: Path, fsb: InProcess
) -> None:
    first = json.loads(printed)
    second = json.loads(
        fsb("run", "protonet", *TYPED, "--if-exists=fresh", "--json", at=home).succeeded().out
    )
    third = fewshot_bench.run("protonet", **SETTINGS, runs_dir=str(tmp_path))
    assert first["id"] != second["id"]
    assert without_times(first) == without_times(second) == without_times(third)
    folders = [home / "runs" / first["id"], home / "runs" / second["id"], tmp_path / third["id"]]
    for name in ("episodes.csv", "confusion.csv", "steps.csv", "validation.csv"):
        one, *others = [read_table(folder / name) for folder in folders]
        same = [column for column in one if not column.endswith("_ms")]
        for other in others:
            assert {n: other[n].tolist() for n in same} == {n: one[n].tolist() for n in same}
    moved = fewshot_bench.run("protonet", **SETTINGS, runs_dir=str(tmp_path), episode_seed=1)
    assert moved["episodes_digest"] != first["episodes_digest"]


def test_a_run_is_evaluated_again(printed: str, home: Path, fsb: InProcess) -> None:
    before = json.loads(printed)
    again = json.loads(
        fsb("eval", f"runs/{before['id']}", "--json", "--runs-dir=e", at=home).succeeded().out
    )
    assert again["evaluated_from"] == before["id"]
    assert again["episodes_digest"] == before["episodes_digest"]
    assert again["test"] == before["test"]
    other = fewshot_bench.evaluate(
        str(home / "runs" / before["id"]), way=3, shot=2, episodes=4, runs_dir=str(home / "e")
    )
    assert (other["task"]["way"], other["task"]["shot"], other["test"]["episodes"]) == (3, 2, 4)
    assert other["train_task"] == before["train_task"]


def test_runs_are_compared_on_the_same_episodes(printed: str, home: Path, fsb: InProcess) -> None:
    protonet = json.loads(printed)
    data = [word for word in TYPED if word.split("=")[0].endswith(("-classes", "-size"))]
    task = ["--episodes=6", "--shot=1", "--query=3", "--device=cpu"]
    shown = fsb("run", "nearest-centroid", *data, *task, "--runs-dir=c", at=home).succeeded().out
    assert "nearest-centroid on glyphs, 5-way 1-shot" in shown
    (floor,) = (home / "c").glob("nearest-centroid*")
    runs = (f"runs/{protonet['id']}", f"c/{floor.name}")
    table = fsb("compare", *runs, "--baseline", "nearest-centroid", at=home).succeeded().out
    assert "glyphs (generated), 3 queries per class, 6 closed episodes" in table
    assert "5-way 1-shot" in table
    assert "protonet" in table
    parsed = json.loads(
        fsb("compare", *runs, "--baseline=nearest-centroid", "--format=json", at=home)
        .succeeded()
        .out
    )
    (shown_table,) = parsed["tables"]
    paired = {
        row["method"]: row["settings"]["5-way 1-shot"]["paired"] for row in shown_table["rows"]
    }
    difference = protonet["test"]["accuracy"] - read_record(floor)["test"]["accuracy"]
    assert paired["nearest-centroid"] is None
    assert paired["protonet"]["difference"] == pytest.approx(difference, abs=1e-12)
    assert parsed["problems"] == []


def test_named_observers_and_metrics_are_used_and_recorded(
    home: Path, printed: str, fake_distribution: Callable[..., Path], tmp_path: Path, fsb: InProcess
) -> None:
    fake_distribution("fake-watcher", "fake_watcher", WATCHER)
    named = ("--with=watcher", "--metric=share-of-first", "--metric=cross-entropy")
    text = fsb("run", "protonet", *TYPED, *named, "--json", at=tmp_path).succeeded().out
    record = json.loads(text)
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert [seen[0], seen[-1]] == [["started", "protonet"], ["ended", "completed"]]
    assert ["validation", 3] in seen
    assert ["test", 6] in seen
    assert ["logged", 3] in seen
    assert set(record["test"]["metrics"]) == {"share-of-first", "cross-entropy"}
    assert "share-of-first" in read_table(tmp_path / "runs" / record["id"] / "episodes.csv")
    of_fake = {(p["kind"], p["name"]) for p in record["plugins"] if p["version"] == "1.0"}
    assert of_fake == {("observers", "watcher"), ("metrics", "share-of-first")}
    # Watching and scoring change no result.
    assert record["test"]["accuracy"] == json.loads(printed)["test"]["accuracy"]
    listed = fsb("plugins", at=tmp_path, COLUMNS="300").succeeded().out
    (row,) = (line for line in listed.splitlines() if "fake-watcher" in line)
    assert all(word in row for word in ("observers", "metrics", " watcher", "share-of-first"))


@pytest.mark.parametrize(
    ("kind", "name"), [("methods", "metagan"), ("datasets", "folder"), ("samplers", "open")]
)
def test_list_shows_names_and_where_they_come_from(
    kind: str, name: str, tmp_path: Path, fsb: InProcess
) -> None:
    lines = fsb("list", kind, at=tmp_path).succeeded().out.splitlines()
    (line,) = [line for line in lines if line.split()[0] == name]
    assert "fewshot-bench" in line
