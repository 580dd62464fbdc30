"""Which operation does not repeat, and which trainings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import library as torch_library

from tests.gpu_measuring.gpu_scripts import BENCHMARKS, GPU

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


# A GPU on which two trainings part in the kinds that are named.
PARTING_GPU = """
    import pytest, torch

    torch.cuda.is_available = lambda: True

    @pytest.fixture(autouse=True)
    def parting(request, monkeypatch):
        kind, numbers = request.node.callspec.params["kind"], iter((1.0, 1.0 + 1e-3))
        monkeypatch.setattr(request.module, "trained", lambda *_, **__: (None, []))
        monkeypatch.setattr(request.module, "weights", lambda _: torch.tensor(
            [next(numbers) if kind in {kinds!r} else 1.0]))
"""


@pytest.mark.parametrize("also", [set(), {"maml"}])
def test_trainings_that_are_known_to_part_leave_the_part_whole(
    scripts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, also: set[str]
) -> None:
    """Those that parted on an H200; another kind is a failure."""
    known = failed_on_the_h200("test_the_same_seed_gives_the_same_bits")
    source = textwrap.dedent(PARTING_GPU).replace("{kinds!r}", repr(known | also))
    (tmp_path / "parting_gpu.py").write_text(source, "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p parting_gpu -k same_seed_gives_the_same_bits")
    out = tmp_path / "rows"
    words = [sys.executable, str(GPU / "tests.py"), "--out", str(out)]
    code = subprocess.run(words, capture_output=True, check=False).returncode
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert len(rows) == len(scripts.correctness.KINDS)
    error = f"exit code {code}" if code else None
    assert scripts.measure.whole({"rows": rows, "error": error}) == (not also)
    assert kinds_of(row for row in rows if "failure" in row) == also
    assert kinds_of(row for row in rows if "known" in row) == known
    assert all(float(row["apart"]) > 0 for row in rows if "known" in row)


def failed_on_the_h200(test: str) -> set[str]:
    path = BENCHMARKS / "results/2026-11-27-h200-gpu.json"
    rows = json.loads(path.read_text("utf-8"))["parts"]["tests"]["rows"]
    own = (row for row in rows if str(row["test"]).startswith(test) and "failure" in row)
    return kinds_of(own)


def kinds_of(rows: Iterable[dict[str, Any]]) -> set[str]:
    return {row["test"].partition("[")[2].rstrip("]") for row in rows}
