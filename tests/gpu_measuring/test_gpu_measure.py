"""``benchmarks/gpu/measure.py``: the order of its parts, their time, what fails."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.gpu_measuring.gpu_scripts import GPU, ROOT

STAND_INS = """
    import os, sys, time
    time.sleep(float(os.environ.get("IMPORTED_IN", "0")))
    sys.path.insert(0, {gpu!r})
    import torch
    from bench import Bench, main

    def machine(bench):
        bench.row(device="a card", torch="2.11", pid=os.getpid())

    def fine(bench):
        with bench.told(what="fine") as row:
            row["pid"] = os.getpid()
            row["machine"] = bench.machine().get("device")

    def error(bench):
        with bench.told(what="one") as row:
            raise ValueError("one row is wrong")
        bench.row(what="two")

    def fails(bench):
        bench.row(what="before")
        raise RuntimeError("the part is wrong")

    def crash(bench):
        bench.row(what="before")
        os.abort()

    def sleeps(bench):
        bench.row(what="before")
        time.sleep(600)

    def leaves(bench):
        while not bench.over(bench.left() + 1 if bench.left() < 0.5 else 0, "the rest"):
            time.sleep(0.05)

    def places(bench):
        names = ("FSB_DATA", "TMPDIR", "PYTHONPATH")
        bench.row(keep=str(bench.keep), carried=[str(folder) for folder in bench.carried],
                  **{{name: os.environ[name] for name in names}})

    def breaks(bench):
        def wait(self):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        Bench.wait = wait
        with bench.told(what="hit") as row:
            raise RuntimeError("CUDA error")
        bench.row(what="never")

    if __name__ == "__main__":
        raise SystemExit(main(dict(
            machine=machine, fine=fine, error=error, fails=fails, crash=crash, sleeps=sleeps,
            leaves=leaves, breaks=breaks, again=fine, places=places, alone=leaves,
            alone_places=places,
        )))
"""


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stand-ins") / "stand_ins.py"
    path.write_text(textwrap.dedent(STAND_INS).format(gpu=str(GPU)), "utf-8")
    return path


def measured(
    scripts: Any,
    script: Path,
    out: Path,
    *names: str,
    minutes: float = 2.0,
    more: tuple[str, ...] = (),
    **shares: float,
) -> dict[str, Any]:
    """The parts of a measurement with stand-ins for its parts."""
    measure = scripts.measure
    parts = tuple(
        measure.Part(name, shares.get(name, 10), script, alone=name.startswith("alone"))
        for name in ("machine", *names)
    )
    words = ["--device", "cpu", "--minutes", str(minutes), "--out", str(out)]
    measure.main({"all": parts}, [*words, *more])
    return json.loads((out / "results.json").read_text("utf-8"))["parts"]


def test_a_part_that_fails_crashes_or_breaks_the_device_takes_no_other_along(
    scripts: Any, stand_ins: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = measured(
        scripts, stand_ins, tmp_path, "error", "fine", "fails", "crash", "again", "breaks"
    )
    assert list(parts) == ["machine", "error", "fine", "fails", "crash", "again", "breaks"]
    assert parts["error"]["error"] is None
    assert "one row is wrong" in parts["error"]["rows"][0]["error"]
    assert parts["error"]["rows"][1] == {"what": "two"}
    assert parts["fails"]["error"] == "RuntimeError: the part is wrong"
    assert parts["fails"]["rows"] == [{"what": "before"}]
    assert parts["crash"]["error"].startswith("the process ended with SIGABRT")
    assert parts["crash"]["rows"] == [{"what": "before"}]
    # One process, until it is broken.
    first = parts["machine"]["rows"][0]["pid"]
    assert parts["fine"]["rows"][0]["pid"] == first
    assert parts["again"]["rows"][0]["pid"] != first
    assert parts["fine"]["rows"][0]["machine"] == "a card"  # results stood there before it began
    assert "illegal memory access" in parts["breaks"]["error"]
    assert [row["what"] for row in parts["breaks"]["rows"]] == ["hit"]
    said = capsys.readouterr().out
    assert "error: ok, 1 rows are errors" in said
    assert "  what before" in said


def test_after_a_broken_device_there_is_a_new_process(
    scripts: Any, stand_ins: Path, tmp_path: Path
) -> None:
    parts = measured(scripts, stand_ins, tmp_path, "breaks", "fine")
    assert parts["fine"]["error"] is None
    assert parts["fine"]["rows"][0]["pid"] != parts["machine"]["rows"][0]["pid"]


@pytest.mark.exhaustive
def test_it_ends_in_time_and_shares_what_is_left(
    scripts: Any, stand_ins: Path, tmp_path: Path
) -> None:
    began = time.monotonic()
    parts = measured(scripts, stand_ins, tmp_path, "sleeps", "fine", "leaves", minutes=0.6, fine=20)
    assert time.monotonic() - began < 36
    assert parts["sleeps"]["error"].startswith("out of time after")
    assert parts["sleeps"]["rows"] == [{"what": "before"}]
    assert parts["fine"]["error"] is None  # in a process of its own
    # What the others left, this one had, but for a part that is kept for its end.
    assert parts["leaves"]["error"] == "out of time before the rest"
    assert parts["leaves"]["seconds"] > 5


@pytest.mark.exhaustive
def test_what_a_process_takes_to_start_is_time_of_its_part(
    scripts: Any, stand_ins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the process behind one that was ended would be ended, too, and so on."""
    monkeypatch.setenv("IMPORTED_IN", "4")
    parts = measured(
        scripts, stand_ins, tmp_path, "sleeps", "leaves", "alone", minutes=0.9, sleeps=3
    )
    assert parts["sleeps"]["error"].startswith("out of time after")
    for name in ("leaves", "alone"):
        assert parts[name]["error"] == "out of time before the rest", name
        assert parts[name]["rows"] == [{"left": "the rest"}]


def test_two_seconds_at_least_are_left_for_the_end_of_a_part(scripts: Any) -> None:
    end = scripts.measure.end_for_parts
    assert end(1000.0, 100.0) == pytest.approx(980.0)
    assert end(1000.0, 5.0) == pytest.approx(998.0)


def test_what_is_named_from_the_current_folder_is_found_by_every_part(
    scripts: Any, stand_ins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("before", "data", "temporary", "site"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("FSB_DATA", "data")
    monkeypatch.setenv("TMPDIR", "temporary")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["site", "", str(ROOT / "plugins")]))
    more = ("--resume", "before")
    parts = measured(
        scripts, stand_ins, Path("out"), "places", "alone_places", minutes=1.0, more=more
    )
    for name in ("places", "alone_places"):
        assert parts[name]["error"] is None, name
        (row,) = parts[name]["rows"]
        assert row["keep"] == str(tmp_path / "out")
        assert row["carried"] == [str(tmp_path / "before")]
        assert (row["FSB_DATA"], row["TMPDIR"]) == (
            str(tmp_path / "data"), str(tmp_path / "temporary"),
        )  # fmt: skip
        given = row["PYTHONPATH"].split(os.pathsep)
        assert given[-3:] == [str(tmp_path / "site"), str(tmp_path), str(ROOT / "plugins")]


def test_without_time_a_part_is_told_and_not_begun(
    scripts: Any, stand_ins: Path, tmp_path: Path
) -> None:
    parts = measured(scripts, stand_ins, tmp_path, "fine", minutes=0.16)
    assert {part["error"] for part in parts.values()} == {"no time was left"}


@pytest.mark.exhaustive
def test_what_is_published_of_this_code_device_and_torch_is_left_out(
    scripts: Any, stand_ins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, there = scripts.measure, tmp_path / "published"
    there.mkdir()
    monkeypatch.setattr(measure, "RESULTS", there)
    whole = {"rows": [{"what": "published"}], "error": None}
    machine = {"rows": [{"device": "a card", "torch": "2.11"}], "error": None}
    cut = {"rows": [], "error": "out of time after 3 s"}
    wrong = {"rows": [{"what": "one", "error": "ModuleNotFoundError: no wheel"}], "error": None}
    data = {"code": measure.code(), "parts": {"machine": machine, "fine": whole, "again": cut}}
    path = there / "2026-01-02-card-gpu.json"
    for i, change in enumerate((
        {}, {"code": "other"}, {"parts": data["parts"] | {"machine": cut}},
        {"parts": data["parts"] | {"fine": wrong}},
    )):  # fmt: skip
        path.write_text(json.dumps(data | change), "utf-8")
        out = tmp_path / f"out{i}"
        parts = measured(scripts, stand_ins, out, "fine", "again")
        assert ("fine" in parts) == bool(change)
        assert "again" in parts  # which is not whole there
    known = json.loads((tmp_path / "out0/results.json").read_text("utf-8"))["known"]
    assert known == {"fine": path.name}


@pytest.mark.exhaustive
def test_what_a_peer_does_not_offer_is_an_answer_and_what_is_missing_is_none(
    scripts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the peers' own worker, in a Python that may have none of them."""
    monkeypatch.setattr(scripts.speed, "PEERS", ("torchopt", "higher"))
    monkeypatch.setattr(scripts.speed, "peers_python", lambda: sys.executable)
    site = tmp_path / "site"
    site.mkdir()
    for name in ("torchopt", "learn2learn"):
        (site / f"{name}.py").write_text("", "utf-8")
    (site / "higher.py").write_text("raise ModuleNotFoundError('no wheel')", "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setattr(scripts.speed, "PEER_ITEMS", ("W2_5way",))
    monkeypatch.setattr(scripts.speed.work, "write_arrays", arrays)
    out = tmp_path / "rows"
    end = time.monotonic() + 100
    scripts.speed.peers(scripts.bench.Bench(torch.device("cpu"), False, tmp_path, end, out))
    of_peer = {row["peer"]: row for row in map(json.loads, out.read_text("utf-8").splitlines())}
    assert of_peer["torchopt"]["not_offered"] == "torchopt has no prototypical network"
    assert "no wheel" in of_peer["higher"]["error"]
    whole = scripts.measure.whole
    assert whole({"rows": [of_peer["torchopt"]], "error": None})
    assert not whole({"rows": [of_peer["torchopt"], of_peer["higher"]], "error": None})
    assert not whole({"rows": [{"test": "one", "failure": "assert"}], "error": None})
    assert not whole({"rows": [], "error": "out of time after 3 s"})


def arrays(path: Path) -> None:
    """Images for workers that take no turn."""
    images = np.zeros((8, 20, 1, 28, 28), np.uint8)
    np.savez(path, train=images, test=images)


def test_the_digest_has_everything_that_a_result_depends_on(
    scripts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = scripts.measure
    sources = {path.relative_to(ROOT).as_posix() for path in measure.sources()}
    settings = {"benchmarks/published.toml", "fewshot_bench/config/defaults.toml", "pyproject.toml"}
    assert settings < sources
    # What the GPU's tests import of the tests' own modules, and those import.
    seen, ahead = set[Path](), [*(ROOT / "tests/gpu").glob("*.py"), ROOT / "tests/conftest.py"]
    while ahead:
        path = ahead.pop()
        seen.add(path)
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names += [f"{node.module}.{alias.name}" for alias in node.names]
            own = {ROOT / f"{(name or '').replace('.', '/')}.py" for name in names}
            ahead += [path for path in own - seen if path.exists()]
    assert len(seen) > 3
    assert {path.relative_to(ROOT).as_posix() for path in seen} <= sources
    # Whatever of it changes, the digest does.
    changed = tmp_path / "sources"
    for name in ("pyproject.toml", "benchmarks/published.toml", "tests/engine/toys.py"):
        shutil.rmtree(changed, ignore_errors=True)
        for path in sources:
            (changed / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, changed / path)
        with (changed / name).open("a", encoding="utf-8") as file:
            file.write("\n")
        monkeypatch.setattr(measure, "ROOT", ROOT)
        before = measure.code()
        monkeypatch.setattr(measure, "ROOT", changed)
        assert measure.code() != before, name


def test_a_wrong_word_is_one_line() -> None:
    for words, said in (
        (["--only", "nothing"], "no stage or part 'nothing'"),
        (["--resume", "not-there"], "--resume not-there: there is no such folder"),
        (["--rows", "tutorial of"], "--rows 'tutorial of': no row has it; there are omniglot 5w1s"),
    ):
        ended = subprocess.run(
            [sys.executable, str(GPU / "measure.py"), "--out", "x", *words],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ended.returncode == 2
        assert said in ended.stderr
        assert "Traceback" not in ended.stderr


def test_a_device_that_is_not_there_is_a_result(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, str(GPU / "measure.py"), "--device", "cuda:99", "--minutes", "1",
         "--only", "rows", "--small", "--out", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    parts = json.loads((tmp_path / "results.json").read_text("utf-8"))["parts"]
    assert parts["machine"]["error"]
    assert parts["rows"]["rows"][0]["error"]
    assert "Traceback" not in ended.stdout
