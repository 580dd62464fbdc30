"""Several processes in one folder: no torn file, no lost record, nothing made twice."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewshot_bench.data.cache import Decoded, cached
from fewshot_bench.data.download import fetch_folder
from fewshot_bench.results.record import read_record, write_atomically
from fewshot_bench.utils.files import Busy, locked, sweep
from tests.faults.broken_off import CONV, assert_same, command
from tests.faults.killing import Fsb, server


@pytest.fixture(scope="module")
def context() -> Any:
    return server()


def at_once(work: Callable[[int], Any], workers: int = 4) -> list[Any]:
    """What each of several threads gives; they begin together."""
    ready, found = threading.Barrier(workers), {}

    def one(i: int) -> None:
        ready.wait()
        found[i] = work(i)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[i] for i in range(workers)]


def test_runs_in_one_folder_with_one_cache_while_compare_reads(
    context: Any, tmp_path: Path
) -> None:
    settings = CONV | {"cache_dir": "cache", "if_exists": "fresh", "checkpoint_every": 1}
    going = [Fsb(context, command("protonet", settings), tmp_path) for _ in range(3)]
    compared = 0
    while any(fsb.process.is_alive() for fsb in going) or not compared:
        code, said = Fsb(context, ["compare"], tmp_path).end()
        assert "Traceback" not in said
        assert "damaged" not in said
        # Before the first record is there, and before the first is finished, it has nothing.
        assert code == 0 or "there is no 'runs'" in said or "no finished run" in said, said
        compared += 1
    for fsb in going:
        code, said = fsb.end()
        assert code == 0, said
    one, *others = (path.parent for path in tmp_path.glob("runs/*/record.json"))
    assert len(others) == 2
    for other in others:
        assert_same(one, other)
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 1
    assert not list(tmp_path.rglob("*.part"))


def test_one_of_two_who_go_on_with_a_run_does(context: Any, tmp_path: Path) -> None:
    settings = CONV | {"cache_dir": "cache", "steps": 60, "checkpoint_every": 1}
    # It dies when several checkpoints are there, and has many steps before it.
    fsb = Fsb(context, command("protonet", settings), tmp_path, dies=("replace", 12, True))
    assert fsb.end()[0] < 0
    assert list(tmp_path.glob("runs/*/checkpoints/step-*"))
    (folder,) = (path.parent for path in tmp_path.glob("runs/*/record.json"))
    both = [Fsb(context, ["resume", str(folder)], tmp_path) for _ in range(2)]
    ends = sorted(fsb.end() for fsb in both)
    assert read_record(folder)["status"] == "completed"
    assert read_record(folder)["timing"]["interruptions"] == 1
    (first, _), (second, said) = ends
    # The second is told, or came when the first was through.
    assert first == 0
    assert second == 0 or (second == 2 and "another process is writing" in said)


def test_a_cache_file_is_made_once_for_all_who_want_it(tmp_path: Path) -> None:
    made: list[int] = []

    def build() -> Decoded:
        made.append(1)
        time.sleep(0.2)
        return Decoded(np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2), {"digest": "d"})

    found = at_once(lambda _: cached(tmp_path, "images", {"key": 1}, build))
    assert len(made) == 1
    for decoded in found:
        assert decoded.meta == {"digest": "d"}
        assert decoded.images.sum() == 276


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refused)
    decoded = cached(tmp_path, "images", {}, lambda: Decoded(np.zeros((1, 1, 2, 2), np.uint8)))
    assert decoded.images.shape == (1, 1, 2, 2)


def test_a_download_is_made_once_and_takes_no_leftovers(tmp_path: Path) -> None:
    target, made = tmp_path / "data", []
    (tmp_path / "data.part").mkdir()
    (tmp_path / "data.part" / "images.zip.4711.part").write_bytes(b"of a process that was killed")

    def download(folder: Path) -> None:
        made.append(folder)
        time.sleep(0.1)
        (folder / "images.zip").write_bytes(b"whole")

    assert at_once(lambda _: fetch_folder(download, target)) == [target] * 4
    assert len(made) == 1
    assert [path.name for path in target.iterdir()] == ["images.zip"]
    assert not (tmp_path / "data.part").exists()


def test_who_reads_while_others_write_finds_one_content_whole(tmp_path: Path) -> None:
    path, reading, ended = tmp_path / "record.json", threading.Event(), threading.Event()
    write_atomically(path, json.dumps([0] * 5000))

    def work(i: int) -> int:
        if i:
            reading.wait()
            for n in range(40):
                write_atomically(path, json.dumps([100 * i + n] * 5000))
            ended.set()
            return 0
        read = 0
        while not ended.is_set():
            assert len(set(json.loads(path.read_text("utf-8")))) == 1
            read += 1
            reading.set()
        return read

    assert at_once(work)[0] > 0
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_a_lock_is_free_when_its_process_is_killed(context: Any, tmp_path: Path) -> None:
    with locked(tmp_path / "lock", wait=0), pytest.raises(Busy), locked(tmp_path / "lock", wait=0):
        pytest.fail("two hold it")
    process = context.Process(target=hold, args=(tmp_path,))
    process.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    with pytest.raises(Busy), locked(tmp_path / "lock", wait=0):
        pytest.fail("two hold it")
    process.kill()
    process.join()
    with locked(tmp_path / "lock", wait=0):
        pass


def hold(folder: Path) -> None:
    with locked(folder / "lock"):
        (folder / "held").touch()
        time.sleep(3600)


def test_only_leftovers_of_the_file_in_question_are_swept(tmp_path: Path) -> None:
    for name in (".a.npy.x1.part", ".b.npy.x2.part", "a.npy", "other.part"):
        (tmp_path / name).touch()
    sweep(tmp_path, "a.npy")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".b.npy.x2.part", "a.npy", "other.part"]
    sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npy", "other.part"]


def test_a_clock_that_jumps_back_changes_nothing(
    tmp_path: Path, data_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids have the time of day in them, which orders runs that are alike; no number and no time
    that is measured comes from it."""
    import fewshot_bench

    settings = {**CONV, "runs_dir": str(tmp_path), "cache_dir": str(data_cache)}
    settings |= {"checkpoint_every": "0.001s"}
    real, calls = time.time, []

    def backwards() -> float:
        calls.append(1)
        return real() - 3600.0 * len(calls)

    first = fewshot_bench.run("protonet", **settings)
    monkeypatch.setattr(time, "time", backwards)
    monkeypatch.setattr(time, "gmtime", lambda *_: time.struct_time((2001, 1, 1, 0, 0, 0, 0, 1, 0)))
    second = fewshot_bench.run("protonet", **settings)
    assert second["id"].split("-")[-2] == "20010101T000000"
    assert_same(tmp_path / first["id"], tmp_path / second["id"])
    assert second["training"]["seconds"] > 0
    assert min(second["timing"]["step_ms"].values()) > 0
