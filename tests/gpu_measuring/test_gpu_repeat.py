"""Which operation does not repeat."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import library as torch_library

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
