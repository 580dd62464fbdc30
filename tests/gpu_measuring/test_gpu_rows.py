"""Published rows: their order, what stops a run, how it goes on at the next visit."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.gpu_measuring.gpu_scripts import BENCHMARKS


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


STEPS = 150


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
            small |= {"--backbone-channels": 8}
            return [*typed, *(str(word) for pair in small.items() for word in pair)]

        monkeypatch.setattr(scripts.rows, "words_of", words)
        for name, value in {"SLICE": 0, "SHARE": 1e9, "LEAST": 0, "LOOK": 0.02}.items():
            monkeypatch.setattr(scripts.rows, name, value)

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
    short = Short(scripts, monkeypatch, STEPS)
    (first,) = short.visit(tmp_path / "one", tested=10_000)  # it can never be ended
    assert first["status"] == "interrupted"
    assert "others have their turn" in first["stopped"]
    assert 0 < first["step"] < STEPS
    assert first["left"] == "the end of omniglot 5w1s protonet paper"

    # Once more without an end in sight: what is resumed gives up its time, too.
    (second,) = short.visit(tmp_path / "two", tmp_path / "one", tested=10_000)
    assert second["began"] == f"resumed at step {first['step']}"
    assert second["status"] == "interrupted"
    assert "others have their turn" in second["stopped"]
    assert first["step"] < second["step"] < STEPS

    # Both visits are carried: the newer copy goes on, whatever their order.
    places = tmp_path / "two", tmp_path / "one"
    (third,) = short.visit(tmp_path / "three", *places, tested=0)
    assert third["began"] == f"resumed at step {second['step']}"
    assert (third["status"], third["step"]) == ("completed", STEPS)
    assert third["run"] == second["run"] == first["run"]
    assert "left" not in third

    # Nothing is begun, and what was carried is kept all the same.
    assert short.visit(tmp_path / "four", tmp_path / "one", tmp_path / "three", tested=0) == []
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    assert scripts.carried.unpack(tmp_path / "four", unpacked) == []
    (run,) = scripts.carried.runs_in(unpacked)
    assert run.finished
    assert not list((run.folder / "checkpoints").glob("*"))


def made_run(scripts: Any, folder: Path, status: str, size: int, step: int = 10) -> Any:
    """A run's folder of that many bytes that do not become smaller."""
    (folder / "checkpoints").mkdir(parents=True)
    record = {
        "status": status, "config": {"steps": 100}, "training": {"seconds": 10.0}, "test": None,
        "timing": {},
    }  # fmt: skip
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
    back.mkdir()
    assert carried.unpack(keep, back) == []
    assert {run.folder.name for run in carried.runs_in(back)} == {
        "small", "large-finished", "larger-than-a-volume",
    }  # fmt: skip
    whole = back / "larger-than-a-volume/checkpoints" / runs[2].files()[-1].name
    assert whole.read_bytes() == runs[2].files()[-1].read_bytes()
    assert len(list(whole.parent.iterdir())) == 1  # the newest
    assert not (back / "larger-than-a-volume/weights.safetensors").exists()
    # One that is damaged is told, and half a checkpoint takes no other one's place.
    volumes[1].write_bytes(b"")
    again = tmp_path / "again"
    made_run(scripts, again / "larger-than-a-volume", "interrupted", 10, step=5)
    assert carried.unpack(keep, again) != []
    (run,) = (r for r in carried.runs_in(again) if r.folder.name == "larger-than-a-volume")
    assert run.step == 5


FINISHED, NEWER, OLDER = ("completed", 100), ("interrupted", 60), ("interrupted", 10)


@pytest.mark.parametrize("packed", ["volumes", "zip", "folder"])
@pytest.mark.parametrize(
    ("places", "kept"),
    [
        ((OLDER, FINISHED), FINISHED),
        ((FINISHED, OLDER), FINISHED),
        ((OLDER, NEWER), NEWER),
        ((NEWER, OLDER), NEWER),
        ((("interrupted", 100), FINISHED), FINISHED),
    ],
)
def test_of_two_copies_of_a_run_the_further_one_stays(
    scripts: Any, tmp_path: Path, packed: str, places: Any, kept: tuple[str, int]
) -> None:
    """Whichever is read first: DIR may have been measured into again, or two folders carried."""
    into = tmp_path / "into"
    into.mkdir()
    for i, (status, step) in enumerate(places):
        source, place = tmp_path / f"source{i}", tmp_path / f"place{i}"
        run = made_run(scripts, source / "run", status, 10, step)
        place.mkdir()
        if packed == "volumes":
            scripts.carried.keep([run], place, 2)
        elif packed == "zip":
            shutil.make_archive(str(place / "run"), "zip", run.folder)
        assert scripts.carried.unpack(source if packed == "folder" else place, into) == []
    (run,) = scripts.carried.runs_in(into)
    assert run.record["status"] == kept[0]
    assert run.finished or run.step == kept[1]


def test_a_damaged_copy_of_a_finished_run_keeps_no_whole_one_out(
    scripts: Any, tmp_path: Path
) -> None:
    run, into = made_run(scripts, tmp_path / "run", "completed", 100_000), tmp_path / "into"
    places = tmp_path / "damaged", tmp_path / "whole"
    for folder in (into, *places):
        folder.mkdir()
    for place in places:
        scripts.carried.keep([run], place, 2)
    (volume,) = scripts.carried.volumes_of(places[0])
    volume.write_bytes(volume.read_bytes()[:50_000])
    assert scripts.carried.unpack(places[0], into) != []
    assert not (into / "run/weights.safetensors").exists()
    assert scripts.carried.unpack(places[1], into) == []
    assert (into / "run/weights.safetensors").stat().st_size == 100_000


def test_an_archive_that_names_a_file_elsewhere_leaves_it_alone(
    scripts: Any, tmp_path: Path
) -> None:
    (tmp_path / "into").mkdir()
    victim = tmp_path / "victim"
    victim.write_text("whole")
    place = tmp_path / "place"
    place.mkdir()
    with tarfile.open(place / f"{scripts.carried.NAME}.00", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../" * 20 + str(victim.relative_to("/"))))
    assert scripts.carried.unpack(place, tmp_path / "into") != []
    assert victim.read_text() == "whole"


def test_what_is_nearest_to_its_end_goes_on_first(scripts: Any, tmp_path: Path) -> None:
    for name, step in (("far", 10), ("near", 90), ("middle", 50)):
        made_run(scripts, tmp_path / name, "interrupted", 10, step)
    made_run(scripts, tmp_path / "ended", "completed", 10)
    names = [run.folder.name for run in scripts.rows.unfinished(tmp_path)]
    assert names == ["near", "middle", "far"]


def visited(
    scripts: Any, monkeypatch: pytest.MonkeyPatch, carried: Path, keep: Path
) -> tuple[list[str], list[dict[str, Any]]]:
    """The runs that a visit with no row of its own goes on with, and its rows."""
    resumed: list[str] = []
    monkeypatch.setattr(scripts.rows, "wanted", lambda bench: [])
    monkeypatch.setattr(scripts.rows, "title_of", lambda run, figures, bench: "the row")
    monkeypatch.setattr(scripts.rows, "go", lambda *asked: resumed.append(asked[-1].folder.name))
    keep.mkdir()
    out, cpu = keep.parent / "rows.jsonl", torch.device("cpu")
    scripts.rows.rows(
        scripts.bench.Bench(cpu, False, keep, time.monotonic() + 300, out, (carried,))
    )
    written = out.read_text("utf-8") if out.exists() else ""
    return resumed, [json.loads(line) for line in written.splitlines()]


@pytest.mark.parametrize("other", ["completed", "interrupted"])
def test_of_several_runs_of_a_row_the_furthest_goes_on(
    scripts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, other: str
) -> None:
    made_run(scripts, tmp_path / "runs" / "ahead", other, 10, 60)
    made_run(scripts, tmp_path / "runs" / "behind", "interrupted", 10, 30)
    resumed, _ = visited(scripts, monkeypatch, tmp_path / "runs", tmp_path / "keep")
    assert set(resumed) == ({"ahead"} if other == "interrupted" else set())


def test_a_run_without_a_checkpoint_does_not_stand_for_its_row(
    scripts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody can resume it, so the row has to begin."""
    rows, figure, bench = scripts.rows, SimpleNamespace(title="the row"), None
    monkeypatch.setattr(rows, "title_of", lambda run, figures, bench: figures[0].title)
    run = made_run(scripts, tmp_path / "run", "interrupted", 10)
    assert rows.run_of(figure, tmp_path, bench).folder == run.folder
    shutil.rmtree(run.folder / "checkpoints")
    assert rows.run_of(figure, tmp_path, bench) is None


def test_finished_runs_come_back_where_nothing_is_begun(
    scripts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else the report of that visit fills none of their rows."""
    made_run(scripts, tmp_path / "runs" / "ended", "completed", 10)
    assert visited(scripts, monkeypatch, tmp_path / "runs", tmp_path / "keep") == ([], [])
    back = tmp_path / "back"
    back.mkdir()
    assert scripts.carried.unpack(tmp_path / "keep", back) == []
    assert [run.folder.name for run in scripts.carried.runs_in(back)] == ["ended"]


def test_what_was_carried_and_does_not_fit_is_told(
    scripts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(scripts.carried, "VOLUME", 50_000)
    made_run(scripts, tmp_path / "runs" / "small", "completed", 10)
    made_run(scripts, tmp_path / "runs" / "large", "interrupted", 150_000)
    _, rows = visited(scripts, monkeypatch, tmp_path / "runs", tmp_path / "keep")
    (row,) = rows
    assert (row["run"], row["began"], row["step"]) == ("large", "carried", 10)
    assert "do not fit" in row["not_kept"]
    assert scripts.carried.volumes_of(tmp_path / "keep") != []


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_file_that_vanishes_while_it_is_looked_at_ends_no_warden(
    scripts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A run replaces its checkpoints and its record all the time."""
    rows, looks, stopped = scripts.rows, [], []

    def files(run: Any) -> list[Path]:
        looks.append(run.folder)
        return [run.folder / ".record.json.x.part"]

    run = made_run(scripts, tmp_path / "run", "running", 10)
    monkeypatch.setattr(scripts.carried.Kept, "files", files)
    monkeypatch.setattr(rows, "LOOK", 0.001)
    monkeypatch.setattr(rows, "can_be_stopped", lambda: True)
    monkeypatch.setattr(rows.os, "kill", lambda *signal: stopped.append(signal))
    bench = SimpleNamespace(left=lambda: 100.0 if len(looks) < 3 else 0.0, volumes=2)
    warden = rows.Warden(bench, tmp_path, run)
    with warden:
        end = time.monotonic() + 30
        while not stopped and warden.is_alive() and time.monotonic() < end:
            time.sleep(0.01)
    assert warden.why == "the time was over"
    assert len(stopped) == 1
