"""Where a card is full, and what its kernels are."""

from __future__ import annotations

import ast
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.gpu_measuring.gpu_scripts import ROOT


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


@pytest.mark.exhaustive
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


def test_every_way_is_measured_the_most_expensive_last(scripts: Any) -> None:
    ways = scripts.speed.GPU_WAYS
    assert ways[0] == ("graph", None, "fp32")
    assert {"graph", "eager", "batched", "im2col"} == {engine for engine, _, _ in ways}
    assert ("graph", "batched", "tf32") in ways
