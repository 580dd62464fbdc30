"""What a GPU is measured by, without one: ``benchmarks/gpu``."""

from __future__ import annotations

import ast
import copy
import importlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import library as torch_library

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
GPU = BENCHMARKS / "gpu"
PARTS = {
    "machine", "tests", "repeat", "precision", "agree", "maml", "protonet", "evaluation", "metagan",
    "profile", "peers", "rows", "growth",
}  # fmt: skip
MODULES = (
    "bench", "carried", "correctness", "differing", "grown", "growth", "kernels", "measure",
    "parts", "published", "reading", "report", "rows", "speed", "visits",
)  # fmt: skip


@pytest.fixture(scope="module")
def scripts() -> Any:
    """The scripts as modules, by name; where they lie, and their names, stay nobody's."""
    path, names = list(sys.path), set(sys.modules)
    sys.path[:0] = [str(GPU), str(BENCHMARKS)]
    try:
        modules = {name: importlib.import_module(name) for name in MODULES}
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - names:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if file.startswith(str(BENCHMARKS)):
                del sys.modules[name]
    return SimpleNamespace(**modules)


# ---- measure.py: order, time, what fails ----------------------------------------------------

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
    settings = {"benchmarks/published.toml", "fewshot_bench/defaults.toml", "pyproject.toml"}
    assert settings < sources
    # What the GPU's tests import of the tests' own modules, and those import.
    folders = [ROOT / "tests", ROOT / "tests/engine"]
    seen, ahead = set[Path](), [*(ROOT / "tests/gpu").glob("*.py"), ROOT / "tests/conftest.py"]
    while ahead:
        path = ahead.pop()
        seen.add(path)
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            own = {folder / f"{name}.py" for folder in folders for name in names}
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


# ---- the rehearsal --------------------------------------------------------------------------


def test_every_part_in_miniature_and_its_report(tmp_path: Path, scripts: Any) -> None:
    """So that no part is first tried on a GPU. Alone on two cores it takes a minute and a half."""
    # So many minutes that no share is short on a busy machine.
    words = ["--small", "--device", "cpu", "--minutes", "40", "--out", str(tmp_path / "out")]
    ended = subprocess.run(
        [sys.executable, str(GPU / "measure.py"), *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    results = json.loads((tmp_path / "out/results.json").read_text("utf-8"))
    assert set(results["parts"]) == PARTS == set(scripts.report.PARTS)
    for name, part in results["parts"].items():
        assert part["error"] is None, (name, part["error"])
        assert part["rows"], name
        if name not in ("peers", "agree"):  # whose environment may not have been made
            assert not [row for row in part["rows"] if "error" in row or "failure" in row], name
        assert f"{name}: ok" in ended.stdout
    assert results["parts"]["agree"]["rows"][0]["agrees"] is True  # ours in float32
    back = [path for path in (tmp_path / "out").iterdir()]
    assert len(back) <= 5
    assert all(path.stat().st_size < 16 * 2**20 for path in back)

    assert scripts.report.main([str(tmp_path / "out"), "--to", str(tmp_path / "page")]) == 0
    (page,) = (tmp_path / "page").glob("*-gpu.md")
    text = page.read_text("utf-8")
    assert "A rehearsal in miniature: no figures." in text
    for title in scripts.report.SECTIONS:
        section = text.partition(f"## {title}\n\n")[2].partition("\n## ")[0]
        assert section.strip(), title
        assert section.strip() != "Unmeasured.", title
    assert scripts.report.main([str(tmp_path / "out")]) == 2  # no figures: nowhere else


SLICE = (
    "(protonet or relationnet) and not metagan or batched and float64 and maml or same_episodes "
    "or killed"
)


def test_the_tests_for_a_gpu_run_on_a_cpu(tmp_path: Path) -> None:
    """Cheap cases of every function that a CPU can run."""
    report = tmp_path / "report.xml"
    words = ["tests/gpu", "-m", "gpu", "-k", SLICE, "-o", "addopts=", "-p", "no:cacheprovider"]
    words += ["-p", "no:randomly", "-q", "--junitxml", str(report), "-o", "junit_family=xunit1"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"FSB_TEST_DEVICE": "cpu"}, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    cases = ElementTree.parse(report).iter("testcase")
    names = [str(case.get("name")) for case in cases if case.find("skipped") is None]
    assert len(names) > 12
    source = ast.parse((ROOT / "tests/gpu/test_gpu.py").read_text("utf-8"))
    possible = {
        node.name
        for node in source.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        and "only_cuda" not in map(ast.unparse, node.decorator_list)
    }  # fmt: skip
    assert {name.partition("[")[0] for name in names} == possible


# ---- which operation does not repeat --------------------------------------------------------

NUMBERS = iter(range(10**6))


class Unsteady(torch.autograd.Function):
    """Rounds differently each time, backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        return torch.ops.planted.unsteady(g)


@pytest.fixture(scope="module")
def planted() -> Iterator[None]:
    operations = torch_library.Library("planted", "FRAGMENT")
    operations.define("unsteady(Tensor x) -> Tensor")
    operations.impl("unsteady", lambda x: x * 2 + 1e-6 * next(NUMBERS), "CPU")
    yield
    operations._destroy()


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize("where", ["forward", "backward", "nowhere"])
def test_the_operation_that_does_not_repeat_is_named(scripts: Any, where: str) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(1, 2, 3)
    images = torch.randn(4, 1, 8, 8).contiguous(memory_format=torch.channels_last)

    def work() -> None:
        x = layer(images).relu()
        if where == "forward":
            x = torch.ops.planted.unsteady(x.detach())
        if where == "backward":
            x = Unsteady.apply(x)
        x = torch.nn.functional.max_pool2d(x, 2) + torch.empty(1).fill_(1.0)
        if x.requires_grad:
            torch.autograd.grad(x.sum(), list(layer.parameters()))

    found = scripts.differing.find(work, repeats=2)
    if where == "nowhere":
        assert found == []
        return
    first = found[0]
    assert first["operation"] == "planted.unsteady.default"
    assert first["times"] == 2
    assert first["inputs"][0].startswith("float32[4, 2, 6, 6]")
    assert len(found) == 1  # what follows has other inputs
    assert Path(__file__).name in first["place"]


@pytest.mark.usefixtures("planted")
def test_a_training_that_does_not_repeat_is_looked_into(
    scripts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each is trained twice; of those that part, the operation is named; switches are tried."""
    correctness = scripts.correctness
    parting = {"protonet", "relationnet"}

    def twice(kind: str, bench: Any) -> dict[str, Any]:
        repeats = kind not in parting or torch.backends.cudnn.deterministic
        return {"repeats": repeats, "apart": 0.0 if repeats else 0.1, "step_ms": 1.0}

    def one_step(kind: str, bench: Any) -> Any:
        return lambda: torch.ops.planted.unsteady(torch.ones(3))

    monkeypatch.setattr(correctness, "trained_twice", twice)
    monkeypatch.setattr(correctness, "one_step", one_step)
    out = tmp_path / "rows"
    correctness.repeat(
        scripts.bench.Bench(torch.device("cpu"), False, tmp_path, time.monotonic() + 100, out)
    )
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    plain = {r["kind"]: r["repeats"] for r in rows if r["switch"] == "none" and "looked" not in r}
    assert plain == {kind: kind not in parting for kind in correctness.KINDS}
    looked = {r["kind"]: r["broken_by"] for r in rows if "looked" in r}
    assert set(looked) == parting
    assert all(f[0]["operation"] == "planted.unsteady.default" for f in looked.values())
    switched = {(r["kind"], r["switch"]): r["repeats"] for r in rows if r["switch"] != "none"}
    assert switched == {
        (kind, switch): switch == "cudnn.deterministic"
        for kind in parting
        for switch in correctness.SWITCHES
    }


def test_work_that_is_not_the_same_is_told(scripts: Any) -> None:
    turns = iter(range(10))

    def work() -> None:
        x = torch.ones(3) + 1
        x = x * 2 if next(turns) else x / 2

    (found,) = scripts.differing.find(work, repeats=1)
    assert found["operation"] == "other operations"


def test_what_is_no_operation_of_torch_is_told(scripts: Any) -> None:
    numbers = iter(range(10))

    def work() -> None:
        x = torch.zeros(3) + 1
        x.numpy()[0] += next(numbers)
        _ = (x * 2).sum()

    first, *_ = scripts.differing.find(work, repeats=1)
    assert first["operation"] == f"{scripts.differing.OUTSIDE} aten.mul.Tensor"
    assert Path(__file__).name in first["place"]


def test_a_checksum_sees_every_bit_and_every_place(scripts: Any) -> None:
    checksum, x = scripts.differing.checksum, torch.randn(50)
    for changed in (x.flip(0), torch.nextafter(x, x + 1), x.double(), x[:-1]):
        assert not torch.equal(checksum(x), checksum(changed))
    assert torch.equal(checksum(x.reshape(5, 10).t()), checksum(x.reshape(5, 10).t().contiguous()))


def test_a_switch_is_put_back(scripts: Any) -> None:
    for switch in scripts.correctness.SWITCHES.values():
        with switch():
            pass
        assert not torch.backends.cudnn.deterministic
        assert not torch.are_deterministic_algorithms_enabled()
    with scripts.correctness.deterministic_algorithms() as told:
        import warnings

        warnings.warn("x does not have a deterministic implementation", stacklevel=1)
    assert told == ["x does not have a deterministic implementation"]


# ---- published rows -------------------------------------------------------------------------


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


# ---- growth, kernels ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "full"),
    [
        ([1, 1, 1.1, 2.2, 4.4], 4),
        ([1, 2, 4, 8, 16], 1),
        ([1, 1, 1, 1, 1], None),
        ([1, 2, 4, 4, 8], 8),
    ],
)
def test_where_the_card_is_full(scripts: Any, times: list[float], full: int | None) -> None:
    rows = [
        {"value": 2**i, "work": 10 * 2**i, "step_ms": ms, "short": None}
        for i, ms in enumerate(times)
    ]
    assert scripts.grown.full_from([*rows, {"value": 64, "error": "out of memory"}]) == full


def test_what_stops_a_block_is_told(
    scripts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    grown = scripts.grown
    cpu = scripts.growth
    monkeypatch.setattr(grown, "BLOCKS", {"tasks": ("task_batch", (1, 2, 4, 8), {})})

    def step(settings: dict[str, Any], device: Any, steps: int) -> Any:
        tasks = settings["task_batch"]
        if tasks == 4:
            raise torch.OutOfMemoryError("no memory for 4")
        return cpu.Grown(float(tasks), tasks, None)

    monkeypatch.setattr(grown.cpu, "grown", step)
    out = tmp_path / "rows"
    bench = scripts.bench.Bench(torch.device("cpu"), False, tmp_path, time.monotonic() + 100, out)
    grown.growth(bench)
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert [row.get("value") for row in rows] == [1, 2, 4, None]  # 8 would not fit either
    assert rows[-1]["full_from"] == 1
    assert rows[-1]["stopped_by"] == "OutOfMemoryError: no memory for 4"
    assert scripts.measure.whole({"rows": rows, "error": None})  # that it stopped, is the answer


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("void cutlass::Kernel2<cutlass_80_tensorop_s1688gemm_128x64", "products and convolutions"),
        ("sm90_xmma_wgrad_indexed_implicit_gemm_f32f32_tf32f32_f32_nhwckrsc_nhwc",
         "products and convolutions"),
        ("void at::native::batch_norm_backward_kernel<float", "normalization"),
        ("void at::native::(anonymous namespace)::max_pool_backward_nhwc<float",
         "pooling and resizing"),
        ("void at::native::elementwise_kernel<128, 2, gpu_kernel_impl_nocast<direct_copy_kernel",
         "copies and layout"),
        ("void at::native::elementwise_kernel<128, 2, CUDAFunctor_add<float>", "elementwise"),
        ("void at::native::reduce_kernel<128, 4, at::native::ReduceOp<float", "sums"),
        ("Memcpy DtoD (Device -> Device)", "copies and layout"),
        ("something else", "other"),
    ],
)  # fmt: skip
def test_kinds_of_kernels(scripts: Any, kernel: str, kind: str) -> None:
    assert scripts.kernels.kind_of(kernel) == kind


def test_our_own_kernels_are_known_by_their_names(scripts: Any) -> None:
    """As Triton has them, with what they were compiled for; torch's gathers are others."""
    source = (ROOT / "fewshot_bench/nn/columns_triton.py").read_text("utf-8")
    names = [
        node.name
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(one) == "triton.jit" for one in node.decorator_list)
    ]
    assert len(names) == 2
    for name in names:
        for ending in ("", "_0d1d2d", "_0d1d2de3c", "_0"):
            assert scripts.kernels.kind_of(name + ending) == "columns and windows", name + ending
    for name in ("void at::native::_scatter_gather_elementwise_kernel<128, 4", "vectorized_gather"):
        assert scripts.kernels.kind_of(name) == "gathers and indices"


def test_a_row_of_training_says_whether_triton_ran(
    scripts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    speed = scripts.speed
    for found in (None, object()):
        monkeypatch.setattr(speed.columns, "_kernels", lambda x, found=found: found)
        out = tmp_path / f"rows {found is None}"
        end = time.monotonic() + 100
        bench = scripts.bench.Bench(torch.device("cpu"), True, tmp_path, end, out)
        monkeypatch.setattr(speed, "describe_machine", lambda *_: {"limits": {"flops": 1.0}})
        monkeypatch.setattr(speed, "limits_of", lambda *_, **__: None)
        speed.machine(bench)
        monkeypatch.setattr(speed.columns, "_kernels", lambda x: None)  # not on a CPU
        monkeypatch.setattr(speed, "triton", lambda device, found=found: found is not None)
        speed.time_training(bench, ("W2_5way",), speed.CPU_WAYS)
        monkeypatch.undo()
        rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
        assert len(rows) > 1
        assert [row["triton"] for row in rows] == [found is not None] * len(rows)


def test_every_way_is_measured_the_dearest_last(scripts: Any) -> None:
    ways = scripts.speed.GPU_WAYS
    assert ways[0] == ("graph", None, "fp32")
    assert {"graph", "eager", "batched", "im2col"} == {engine for engine, _, _ in ways}
    assert ("graph", "batched", "tf32") in ways


# ---- peers' gradients -----------------------------------------------------------------------


def test_a_peer_is_given_our_weights_and_episodes(scripts: Any, tmp_path: Path) -> None:
    """A peer in plain torch has our gradient; with other weights it has not."""
    bench = scripts.bench.Bench(
        torch.device("cpu"), True, tmp_path, time.monotonic() + 100, tmp_path / "rows"
    )
    given = tmp_path / "given.npz"
    exact, own = scripts.correctness.write_given("W1_first_order", bench, given)
    assert scripts.correctness.held(own, exact)["agrees"]
    script = textwrap.dedent("""
        import sys
        sys.path.insert(0, sys.argv[1])
        import numpy as np, torch
        from common import *
        bench = Bench(sys.argv[2])
        if sys.argv[4] == "other":
            bench.given.weights[0] += 0.1
        net = StridedNet(5)
        def backward(episode):
            weights = dict(net.named_parameters())
            fast = {n: w.detach().requires_grad_() for n, w in weights.items()}
            for _ in range(INNER_STEPS):
                logits = torch.func.functional_call(net, fast, episode.support)
                found = torch.autograd.grad(loss(logits, episode.support_labels), fast.values())
                fast = {n: (w - INNER_RATE * g).detach().requires_grad_()
                        for (n, w), g in zip(fast.items(), found)}
            logits = torch.func.functional_call(net, fast, episode.query)
            found = torch.autograd.grad(loss(logits, episode.query_labels), fast.values())
            for w, g in zip(weights.values(), found):
                w.grad = g if w.grad is None else w.grad + g
        meta_training(bench, MAML_ITEMS["W1_first_order"], net, backward)()
        np.save(sys.argv[3], bench.found)
    """)
    for weights, agrees in (("given", True), ("other", False)):
        words = [str(BENCHMARKS / "peers"), str(given), str(tmp_path / "found.npy"), weights]
        subprocess.run([sys.executable, "-c", script, *words], check=True)
        found = np.load(tmp_path / "found.npy")
        assert scripts.correctness.held(found, exact)["agrees"] == agrees


# ---- the report -----------------------------------------------------------------------------

MACHINE = {
    "date": "2026-12-24", "device": "NVIDIA H100", "short": "h100", "python": "3.12.3",
    "torch": "2.11.0", "environment": {"commit": "abc"}, "nvidia_smi": "NVIDIA H100, 580",
    "limits": {"flops": 5e13, "bytes": 3e12, "launch_us": 5.0},
    "products": {"fp32": 5e13, "tf32": 4e14, "bf16": 8e14},
}  # fmt: skip


def trained(item: str, ms: float, precision: str = "fp32", **more: Any) -> dict[str, Any]:
    return {
        "item": item, "engine": "graph", "strategy": None, "precision": precision,
        "ran_as": "graph", "step_ms": ms, "p95_ms": ms, "phases": {"sample": 0.02 * ms},
        "sampling_share": 0.02, "rate": 32e3 / ms, "unit": "tasks/s", "steps": 9,
        "flops_per_step": 2e11, "of_limit": 0.25, "peak_memory": 10**9, "said": [],
    } | more  # fmt: skip


def whole(*rows: dict[str, Any], error: str | None = None) -> dict[str, Any]:
    return {"rows": list(rows), "error": error, "seconds": 10.0}


@pytest.fixture
def made_up() -> dict[str, Any]:
    """Results of every part, none of them measured."""
    w1 = ("W1_second_order", "W1_first_order", "W1_one_shot_one_step")
    parts = {
        "machine": whole(MACHINE),
        "tests": whole(
            {"test": "test_gradients[maml]", "seconds": 1.0},
            {"test": "test_gradients[protonet]", "seconds": 1.0, "failure": "assert"},
        ),
        "repeat": whole(
            {"kind": "protonet", "switch": "none", "repeats": False, "apart": 1e-3, "step_ms": 2.0,
             "warned": []},
            {"kind": "protonet", "switch": "none", "looked": "one step", "broken_by": [
                {"operation": "aten.convolution_backward.default", "place": "in conv.py, line 12",
                 "inputs": ["float32[20, 64, 14, 14] channels-last"], "times": 3, "at": 5,
                 "of": 9}]},
            {"kind": "protonet", "switch": "cudnn.deterministic", "repeats": True, "apart": 0.0,
             "step_ms": 3.0, "warned": []},
        ),
        "precision": whole(
            {"method": "maml", "precision": "tf32", "accuracy": 0.9,
             "trained_minus_fp32": {"points": 0.5, "half_width": 1.0},
             "evaluated_minus_fp32": {"points": 0.01, "half_width": 0.02}},
        ),
        "agree": whole({"item": w1[0], "peer": "higher", "apart": 3e-6, "agrees": True}),
        "maml": whole(
            *(trained(item, 9.0) for item in w1), trained(w1[0], 5.0, "tf32"),
            trained(w1[0], 90.0, ran_as="eager"),
        ),
        "protonet": whole(trained("W2_5way", 0.6), trained("W2_5way", 0.4, "bf16")),
        "metagan": whole(trained("W5", 20.0, "tf32")),
        "evaluation": whole(
            {"item": "W4_maml", "way": "run", "ran_as": "graph", "precision": "fp32", "chunk": 200,
             "seconds": 0.3, "first_s": 1.0, "episodes": 600, "accuracy": 0.6},
            {"item": "W4_maml", "way": "eager", "ran_as": "eager", "precision": "fp32",
             "chunk": 200, "seconds": 1.3, "first_s": 2.0, "episodes": 600, "accuracy": 0.6},
            {"item": "W3", "rate": 5e4, "unit": "episodes/s", "of_limit": 0.1},
        ),
        "profile": whole(
            {"item": "W1_second_order", "step_ms": 10.0, "kinds": {"sums": 4.0, "other": 4.0},
             "kernels": [{"kernel": "all", "ms": 8.0, "calls": 100.0}]},
        ),
        "peers": whole(
            *({"item": item, "peer": "higher", "unit": "tasks/s", "rate": 100.0, "turns": 3}
              for item in w1),
            {"item": w1[0], "peer": "learn2learn", "unit": "tasks/s", "error": "not there"},
            {"item": "W2_5way", "peer": "higher", "unit": "steps/s", "not_offered": "has none"},
        ),
        "rows": whole(
            {"row": "omniglot 5w1s maml paper", "began": "begun", "status": "interrupted",
             "step": 100, "steps": 60000, "seconds": 3.0, "left": "the end of it",
             "stopped": "1800 s to its end; others have their turn"},
            error="out of time before the end of it",
        ),
        "growth": whole(
            {"block": "tasks", "value": 1, "step_ms": 1.0, "work": 1, "peak_memory": 10**9},
            {"block": "tasks", "value": 512, "stopped": "OutOfMemoryError: too much"},
            {"block": "tasks", "full_from": 32, "stopped_by": "OutOfMemoryError: too much"},
        ),
    }  # fmt: skip
    return {"code": "0", "small": False, "minutes": 12.0, "parts": parts, "known": {}}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The pages that a report is written into."""
    for page in ("README.md", "docs/speed.md"):
        (tmp_path / "docs").mkdir(exist_ok=True)
        text = "Before.\n\n<!-- gpu: begin, of x-gpu.json -->\nold\n<!-- gpu: end -->\n\nBehind.\n"
        (tmp_path / page).write_text(text, "utf-8")
    (tmp_path / "benchmarks/results").mkdir(parents=True)
    return tmp_path


def put(data: dict[str, Any], folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "results.json").write_text(json.dumps(data), "utf-8")
    return str(folder)


def test_a_report_has_every_stage(scripts: Any, made_up: Any, checkout: Path) -> None:
    folder = put(made_up, checkout / "DIR")
    assert scripts.report.main([folder, "--root", str(checkout)]) == 0
    results = checkout / "benchmarks/results"
    assert json.loads((results / "2026-12-24-h100-gpu.json").read_text("utf-8")) == made_up
    page = (results / "2026-12-24-h100-gpu.md").read_text("utf-8")
    for line in (
        "fp32 50, TF32 400, bf16 800",
        "at least 20 x the best peer | 35.6 x (3,556 against 100 tasks/s, higher) | 25% | met |",
        "at most 10 ms a step (fp32 or TF32) | 9 ms in fp32; 5 ms in TF32 | 25% | met |",
        "at most 0.5 ms a step (fp32 or TF32 or bf16) | 0.6 ms in fp32; 0.4 ms in bf16 | 25% | "
        "met in bf16 |",
        "| 20 ms in TF32 | 25% | met |",
        "600 MAML test episodes: at most 0.5 s | 0.3 s (fp32, 200 a call, graph) |  | met |",
        "| test_gradients | 1 | 1 | 0 | protonet |",
        "| protonet | cudnn.deterministic | the same bits | 3 ms, x 1.50 |  |",
        "`aten.convolution_backward.default` in conv.py, line 12 of "
        "float32[20, 64, 14, 14] channels-last (3 times)",
        "| maml | TF32 | 90.00 | +0.01 ± 0.02 | +0.50 ± 1.00 |",
        "| W1_second_order | higher | 3.0e-06 | yes |",
        "8 ms in 100 kernels, of 10 ms a step (no kernel runs in 20% of it): sums 50%, other 50%.",
        "| W1_second_order | learn2learn | not there |  |  |",
        "| W2_5way | higher | has none |  |  |",
        "| omniglot 5w1s maml paper | interrupted |  | 100 of 60000 | 3 | 1800 s to its end;",
        "| tasks | 1: 1 ms, 1.00 GB; 512: OutOfMemoryError: too much | 32 |",
        "Part `rows` is not whole: out of time before the end of it.",
        "| rows | 10 | out of time before the end of it |",
    ):
        assert line in page, line
    for name in ("README.md", "docs/speed.md"):
        text = (checkout / name).read_text("utf-8")
        assert text.startswith("Before.\n\n<!-- gpu: begin, of 2026-12-24-h100-gpu.json -->\n\n")
        assert text.endswith("\n\n<!-- gpu: end -->\n\nBehind.\n")
        assert "old" not in text
        assert (
            "| W1 MAML, second order, 32 tasks | 9 ms | 5 ms | 100 tasks/s (higher) | 35.6 |"
            in text
        )
    # Once more: the same; of another visit that day: a second file.
    assert scripts.report.main([folder, "--root", str(checkout)]) == 0
    assert len(list(results.glob("*.json"))) == 1
    put(made_up | {"code": "1"}, checkout / "DIR")
    assert scripts.report.main([folder, "--root", str(checkout)]) == 0
    assert (results / "2026-12-24-h100-2-gpu.json").exists()


def visit(checkout: Path, data: dict[str, Any], date: str, short: str, *parts: str) -> str:
    """A committed visit that has these parts, beside its machine."""
    data = copy.deepcopy(data) | {"code": date}
    data["parts"] = {name: data["parts"][name] for name in ("machine", *parts)}
    (row,) = data["parts"]["machine"]["rows"]
    row |= {"date": date, "device": f"NVIDIA {short.upper()}", "short": short}
    path = checkout / f"benchmarks/results/{date}-{short}-gpu.json"
    path.write_text(json.dumps(data), "utf-8")
    return str(path)


def lines_of(checkout: Path, start: str) -> list[str]:
    text = (checkout / "docs/speed.md").read_text("utf-8")
    return [line for line in text.splitlines() if line.startswith(start)]


def test_a_partial_visit_leaves_the_figures_of_earlier_ones(
    scripts: Any, made_up: Any, checkout: Path
) -> None:
    """And says which visit a figure is of; a ratio is of one card."""
    main, root = scripts.report.main, ["--root", str(checkout)]
    first = visit(checkout, made_up, "2026-12-01", "h100", *made_up["parts"])
    assert main([first, *root]) == 0
    before = (checkout / "README.md").read_text("utf-8")
    # Nothing that the pages have.
    assert main([visit(checkout, made_up, "2026-12-02", "h100", "tests"), *root]) == 0
    assert (checkout / "README.md").read_text("utf-8") == before
    assert "visit" not in before

    old = "[2026-12-01-h100](../benchmarks/results/2026-12-01-h100-gpu.md)"
    new = "[2026-12-03-h100](../benchmarks/results/2026-12-03-h100-gpu.md)"
    made_up["parts"]["metagan"] = whole(trained("W5", 12.0))
    assert main([visit(checkout, made_up, "2026-12-03", "h100", "metagan"), *root]) == 0
    (w5,) = lines_of(checkout, "| W5 MetaGAN of the tutorial, 32 tasks |")
    assert w5.split(" | ")[1:3] == ["12 ms", "20 ms"]
    assert w5.endswith(f"| fp32: {new}; TF32: {old} |")
    (w1,) = lines_of(checkout, "| W1 MAML, second order, 32 tasks |")
    assert w1.endswith(f"| 9 ms | 5 ms | 100 tasks/s (higher) | 35.6 | 25% | {old} |")
    assert len(lines_of(checkout, "| W1 MAML, second order, 32 tasks: at least 20 x")) == 1
    (w4,) = lines_of(checkout, "| W4 MAML")
    assert w4.endswith(f"| 0.3 s | unmeasured |  |  |  | {old} |")
    (asked,) = lines_of(checkout, "| 600 MAML")
    assert asked.endswith(f"| met | {old} |")
    assert lines_of(checkout, f"- {old}: one NVIDIA H100") != []
    assert lines_of(checkout, f"- {new}: one NVIDIA H100") != []
    (spent,) = lines_of(checkout, "- W1 MAML")
    assert f"({old})" in spent

    # Of another card, without peers: no ratio of two cards, and the rest stays.
    made_up["parts"]["maml"] = whole(trained("W1_second_order", 4.0))
    assert main([visit(checkout, made_up, "2026-12-04", "b200", "maml"), *root]) == 0
    other = "[2026-12-04-b200](../benchmarks/results/2026-12-04-b200-gpu.md)"
    (w1,) = lines_of(checkout, "| W1 MAML, second order, 32 tasks |")
    assert w1.endswith(f"| 4 ms | unmeasured |  |  | 25% | {other} |")
    (first_order,) = lines_of(checkout, "| W1 MAML, first order, 32 tasks |")
    assert first_order.endswith(
        f"| 9 ms | unmeasured | 100 tasks/s (higher) | 35.6 | 25% | {old} |"
    )
    # An older visit that is written again changes nothing.
    text = (checkout / "docs/speed.md").read_text("utf-8")
    assert main([first, *root]) == 0
    assert (checkout / "docs/speed.md").read_text("utf-8") == text


def test_the_newest_visit_of_a_day_is_the_newest(
    scripts: Any, made_up: Any, checkout: Path
) -> None:
    results = checkout / "benchmarks/results"
    for stem in ("2026-12-24-h100", *(f"2026-12-24-h100-{i}" for i in (2, 10))):
        (results / f"{stem}-gpu.json").write_text(json.dumps(made_up), "utf-8")
    (results / "2026-12-24-h100-before-gpu.json").write_text("{}", "utf-8")  # not of report.py
    files = [one.file.removesuffix("-gpu.json") for one in scripts.visits.visits(results)]
    assert files == ["2026-12-24-h100-10", "2026-12-24-h100-2", "2026-12-24-h100"]
    began = json.dumps(made_up | {"began": "2026-12-24T10:00:00+00:00"})
    (results / "2026-12-24-a100-gpu.json").write_text(began, "utf-8")
    assert scripts.visits.visits(results)[0].file == "2026-12-24-a100-gpu.json"


def test_results_of_a_cpu_are_none_of_a_gpu(
    scripts: Any, made_up: Any, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = {"device": "Some CPU, 2 cores", "short": "cpu-2core"}
    made_up["parts"]["machine"] = whole(MACHINE | machine)
    folder = put(made_up, checkout / "DIR")
    before = (checkout / "README.md").read_text("utf-8")
    for more in ([], ["--to", str(checkout / "to")]):
        assert scripts.report.main([folder, "--root", str(checkout), *more]) == 2
        assert capsys.readouterr().err == (
            "error: these results are of a CPU; measure.py and report.py are for those of a GPU\n"
        )
    assert not list((checkout / "benchmarks/results").iterdir())
    assert (checkout / "README.md").read_text("utf-8") == before
    # A rehearsal's page says what it is, and nothing of kernels that one thread did not see.
    put(made_up | {"small": True}, checkout / "DIR")
    to = checkout / "to"
    assert scripts.report.main([folder, "--root", str(checkout), "--to", str(to)]) == 0
    (page,) = to.glob("*.md")
    text = page.read_text("utf-8")
    assert "# Measured on a CPU: Some CPU" in text
    assert "8 ms in 100 kernels: sums 50%" in text
    assert "no kernel runs" not in text


def test_what_is_missing_is_unmeasured(scripts: Any, made_up: Any, checkout: Path) -> None:
    made_up["parts"] = {
        "machine": whole(MACHINE | {"products": None, "nvidia_smi": None}),
        "maml": whole({"item": "W1_second_order", "precision": "fp32", "error": "RuntimeError: no"},
                      error="exit code 1: no"),
        "evaluation": whole({"item": "W4_maml", "error": "no"}),
        "peers": whole(error="no time was left"),
        "profile": whole({"item": "W5", "error": "RuntimeError: no profile"}),
        "growth": whole({"block": "tasks", "value": 1, "error": "no"}, {"left": "the rest"}),
        "rows": whole({"row": "a row", "error": "exit status 2: error: no data"}),
        "repeat": whole({"kind": "maml", "switch": "none", "error": "no"}),
        "agree": whole({"item": "W1_first_order", "peer": "higher", "error": "not there"}),
    }  # fmt: skip
    folder = put(made_up, checkout / "DIR")
    before = (checkout / "README.md").read_text("utf-8")
    assert scripts.report.main([folder, "--root", str(checkout)]) == 0
    page = (checkout / "benchmarks/results/2026-12-24-h100-gpu.md").read_text("utf-8")
    asked = page.partition("## What was asked")[2].partition("##")[0]
    lines = [line for line in asked.splitlines() if line.startswith("| ")][1:]
    assert len(lines) == 8
    assert all(line.endswith("| unmeasured |  | unmeasured |") for line in lines)
    assert "Part `maml` is not whole: exit code 1: no." in page
    assert "error: RuntimeError: no profile" in page
    assert "| a row | error | exit status 2: error: no data |" in page
    assert "| tests |  | not run |" in page
    assert (checkout / "README.md").read_text("utf-8") == before  # there is nothing to say


def test_a_part_that_was_left_to_published_results_is_read_from_there(
    scripts: Any, made_up: Any, checkout: Path
) -> None:
    results = checkout / "benchmarks/results"
    other = copy.deepcopy(made_up)
    other["parts"]["machine"]["rows"][0]["date"] = "2026-12-01"
    (results / "2026-12-01-h100-gpu.json").write_text(json.dumps(other), "utf-8")
    made_up["known"] = {"maml": "2026-12-01-h100-gpu.json"}
    del made_up["parts"]["maml"]
    assert scripts.report.main([put(made_up, checkout / "DIR"), "--root", str(checkout)]) == 0
    page = (results / "2026-12-24-h100-gpu.md").read_text("utf-8")
    assert "35.6 x" in page
    assert "| maml | 10 | whole (of 2026-12-01-h100-gpu.json) |" in page


def test_what_is_no_result_is_one_line(
    scripts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text").write_text("{", "utf-8")
    (tmp_path / "other").write_text("[]", "utf-8")
    (tmp_path / "empty").write_text('{"parts": {}}', "utf-8")
    for name, said in (
        ("nothing", "cannot read"), ("text", "is no JSON"), ("other", "has no results"),
        ("empty", "not known what this was measured on"),
    ):  # fmt: skip
        assert scripts.report.main([str(tmp_path / name), "--to", str(tmp_path / "to")]) == 2
        assert said in capsys.readouterr().err


def test_a_finished_run_fills_its_row_of_the_published_table(scripts: Any) -> None:
    """And leaves the others as they are, whoever measured them."""
    published = scripts.published
    page = (BENCHMARKS / "results/published.md").read_text("utf-8")
    assert published.fill(page, []) == page
    figure = published.in_order(BENCHMARKS / "published.toml")[4]
    names = ["preset", "dataset", "way", "shot", "device", "checkpoint_every", "keep_checkpoints"]
    config = {"preset": "paper", "dataset": "omniglot", "way": 5, "shot": 1, "device": "cuda"}
    record = {
        "id": "maml-omniglot-5w1s-20261224T163530-5569", "method": "maml",
        "config": config | {
            "checkpoint_every": "8s", "keep_checkpoints": 1, "method_options": {},
            "backbone_options": {}, "sources": dict.fromkeys(names, "user"),
        },
        "test": {"accuracy": 0.986, "half_width": 0.002}, "training": {"seconds": 200.0},
        "environment": {"commit": "abc"}, "device": {"name": "NVIDIA H100"},
    }  # fmt: skip
    filled = published.fill(page, [SimpleNamespace(record=record)])
    changed = [
        (a, b) for a, b in zip(page.splitlines(), filled.splitlines(), strict=True) if a != b
    ]
    ((before, after),) = changed
    assert "unmeasured" in before
    assert figure.words in after
    assert "| 98.60 ± 0.20: `fsb run maml" in after
    assert "NVIDIA H100" in after


@pytest.mark.parametrize("name", ["README.md", "docs/speed.md"])
def test_the_pages_are_what_the_report_writes(scripts: Any, name: str) -> None:
    report, text = scripts.report, (ROOT / name).read_text("utf-8")
    results = BENCHMARKS / "results"
    together = scripts.visits.Together(scripts.visits.visits(results))
    assert report.filled(text, report.PAGES[name], together) == text
    for visit in together.visits:
        page = (results / visit.file).with_suffix(".md")
        assert report.page_of(results / visit.file, results) == page.read_text("utf-8")
