"""Published rows: their order, what stops a run, how it goes on at the next visit."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gpu_scripts import BENCHMARKS


def test_rows_that_are_asked_for(scripts: Any) -> None:
    def titles(*words: str) -> list[str]:
        return [f.title for f in scripts.rows.wanted(SimpleNamespace(rows=words))]

    order = [f.title for f in scripts.published.in_order(BENCHMARKS / "published.toml")]
    assert titles() == order
    assert titles("metagan tutorial") == ["omniglot 5w5s metagan tutorial"]
    assert titles("20w1s", "5w1s maml") == [t for t in order if "20w1s" in t or "5w1s maml" in t]


def test_the_order_of_the_rows_is_the_issues(scripts: Any) -> None:
    order = scripts.published.in_order(BENCHMARKS / "published.toml")
    names = [(f.method, f.preset, f"{f.way}w{f.shot}s") for f in order]
    assert [n for n in names if n[0] == "protonet"] == names[:4]
    assert names[4:6] == [("maml", "paper", "5w1s"), ("maml", "paper", "5w5s")]
    assert names[6:8] == [("metagan", "paper", "5w1s"), ("metagan", "paper", "5w5s")]
    assert names[8] == ("relationnet", "paper", "5w1s")
    assert names[9] == ("metagan", "paper-relationnet", "5w1s")
    assert names[10] == ("metagan", "tutorial", "5w5s")
    assert {n[2][:3] for n in names[11:]} == {"20w"}


@pytest.mark.parametrize(
    ("left", "elapsed", "need", "carriable", "stops"),
    [
        (100, 10, None, True, None),  # nobody knows yet
        (100, 99, 90, True, None),  # it will be ended
        (100, 10, 200, True, None),  # it has its share
        (100, 60, 200, True, "200 s to its end; others have their turn"),
        (100, 10, 200, False, "200 s to its end, and its checkpoint is too large to be carried"),
        (100, 10, 90, False, None),
        (0, 10, 1, True, "the time was over"),
    ],
)
def test_when_a_run_has_to_stop(
    scripts: Any, left: float, elapsed: float, need: float, carriable: bool, stops: str | None
) -> None:
    assert scripts.rows.why_stop(left, elapsed, 50, need, carriable) == stops


def test_what_a_run_needs_is_known_from_its_checkpoints(scripts: Any) -> None:
    pace = scripts.rows.Pace(1000)
    pace.look(0, 3.0)
    pace.look(100, 10.0)
    assert pace.need() is None  # how long its start took, says nothing
    pace.look(100, 11.0)
    pace.look(300, 20.0)
    assert pace.need() == pytest.approx(700 / 20 + scripts.rows.TESTED)


class Short:
    """A row of a second or two, in place of a paper's."""

    def __init__(self, scripts: Any, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
        self.scripts = scripts
        real = scripts.rows.words_of

        def words(figure: Any, bench: Any, folder: Path) -> list[str]:
            typed = real(figure, bench, folder)
            typed[typed.index("--steps") + 1] = str(steps)
            typed[typed.index("--checkpoint-every") + 1] = "5"
            typed[typed.index("--dataset") + 1] = "glyphs"
            small = {"--train-way": 5, "--query": 3, "--train-query": 3, "--validate-every": 0}
            return [*typed, *(str(word) for pair in small.items() for word in pair)]

        monkeypatch.setattr(scripts.rows, "words_of", words)
        for name in ("SLICE", "SHARE", "LEAST"):
            monkeypatch.setattr(scripts.rows, name, {"SLICE": 1, "SHARE": 1e9, "LEAST": 0}[name])

    def visit(self, keep: Path, *carried: Path, tested: float) -> list[dict[str, Any]]:
        keep.mkdir()
        self.scripts.rows.TESTED = tested
        out = keep.parent / f"{keep.name}.jsonl"
        cpu = torch.device("cpu")
        self.scripts.rows.rows(
            self.scripts.bench.Bench(cpu, True, keep, time.monotonic() + 300, out, carried)
        )
        written = out.read_text("utf-8") if out.exists() else ""
        return [json.loads(line) for line in written.splitlines()]


def test_a_row_that_was_cut_off_goes_on_at_the_next_visit(
    scripts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(scripts.rows, "TESTED", 0)
    short = Short(scripts, monkeypatch, 60)
    (first,) = short.visit(tmp_path / "one", tested=10_000)  # it can never be ended
    assert first["status"] == "interrupted"
    assert "others have their turn" in first["stopped"]
    assert 0 < first["step"] < 60
    assert first["left"] == "the end of omniglot 5w1s protonet paper"

    (second,) = short.visit(tmp_path / "two", tmp_path / "one", tested=0)
    assert second["began"] == f"resumed at step {first['step']}"
    assert (second["status"], second["step"]) == ("completed", 60)
    assert second["run"] == first["run"]
    assert "left" not in second

    assert short.visit(tmp_path / "three", tmp_path / "two", tested=0) == []  # nothing is begun
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    assert scripts.carried.unpack(tmp_path / "two", unpacked) == []
    (run,) = scripts.carried.runs_in(unpacked)
    assert run.finished
    assert not list((run.folder / "checkpoints").glob("*"))


def made_run(scripts: Any, folder: Path, status: str, size: int, step: int = 10) -> Any:
    """A run's folder of that many bytes that do not become smaller."""
    (folder / "checkpoints").mkdir(parents=True)
    record = {"status": status, "config": {"steps": 100}, "training": {"seconds": 10.0}}
    (folder / "record.json").write_text(json.dumps(record), "utf-8")
    content = os.urandom(size)
    (folder / "weights.safetensors").write_bytes(content)
    name = f"step-{step:08d}-{'0' * 64}.safetensors"
    (folder / "checkpoints" / name).write_bytes(content)
    older = f"step-{step - 1:08d}-{'0' * 64}.safetensors"
    (folder / "checkpoints" / older).write_bytes(b"older")
    return scripts.carried.Kept(folder, record)


def test_runs_are_kept_in_files_of_a_bounded_size(
    scripts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    carried = scripts.carried
    monkeypatch.setattr(carried, "VOLUME", 100_000)
    runs = [
        made_run(scripts, tmp_path / "runs" / "small", "completed", 1_000),
        made_run(scripts, tmp_path / "runs" / "large-finished", "completed", 400_000),
        made_run(scripts, tmp_path / "runs" / "larger-than-a-volume", "interrupted", 150_000),
        made_run(scripts, tmp_path / "runs" / "too-large", "interrupted", 250_000),
    ]
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / f"{carried.NAME}.07").write_bytes(b"of before")
    left_out = carried.keep(runs, keep, 2)
    assert left_out == {
        "large-finished": "its weights (0 MiB)", "too-large": "everything: 0 MiB do not fit",
    }  # fmt: skip
    volumes = carried.volumes_of(keep)
    assert [path.suffix for path in volumes] == [".00", ".01"]
    assert all(path.stat().st_size <= 100_000 for path in volumes)
    assert {path.name for path in keep.iterdir()} == {path.name for path in volumes}

    back = tmp_path / "back"
    (back / "small").mkdir(parents=True)  # there already: left as it is
    assert carried.unpack(keep, back) == []
    assert {run.folder.name for run in carried.runs_in(back)} == {
        "large-finished", "larger-than-a-volume",
    }  # fmt: skip
    whole = back / "larger-than-a-volume/checkpoints" / runs[2].files()[-1].name
    assert whole.read_bytes() == runs[2].files()[-1].read_bytes()
    assert len(list(whole.parent.iterdir())) == 1  # the newest
    assert not (back / "larger-than-a-volume/weights.safetensors").exists()
    # One that is damaged is told.
    volumes[1].write_bytes(b"")
    again = tmp_path / "again"
    again.mkdir()
    assert carried.unpack(keep, again) != []


def test_what_is_nearest_to_its_end_goes_on_first(scripts: Any, tmp_path: Path) -> None:
    for name, step in (("far", 10), ("near", 90), ("middle", 50)):
        made_run(scripts, tmp_path / name, "interrupted", 10, step)
    made_run(scripts, tmp_path / "ended", "completed", 10)
    names = [run.folder.name for run in scripts.rows.unfinished(tmp_path)]
    assert names == ["near", "middle", "far"]
