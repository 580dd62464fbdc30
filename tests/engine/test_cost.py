"""Operations and memory of a step, known before the run; columns; the profile."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._C._autograd import DeviceType

from fewshot_bench.engine.executors import Eager
from fewshot_bench.engine.memory import Cost, _held_by_autograd, cost_of_step, warn_of_cost
from fewshot_bench.engine.profiling import PROFILED, profile_steps, table
from fewshot_bench.engine.timing import Columns
from fewshot_bench.engine.training import Plan, Trainer
from tests.engine.toys import Prototypes, logged, source, two_threads

CPU = torch.device("cpu")


def test_held_memory_by_hand() -> None:
    x = torch.ones(1000, requires_grad=True)
    with _held_by_autograd() as peak:
        y = x.exp()  # keeps its result: 4,000 bytes
        z = y * y  # keeps y, which is held already
        total = z.exp()  # another 4,000
        del y, z
        total.sum().backward()
        w = x.exp()  # after the first graph is gone
        del total, w
    assert peak[0] == 8000


def test_memory_grows_with_the_tasks_that_are_run_at_once() -> None:
    method = Prototypes()

    def memory(executor: Eager) -> int:
        return cost_of_step(method, executor, source(), method.players(), 16).memory_bytes

    whole, chunked, threads = map(
        memory, (Eager(method), Eager(method, task_chunk=4), two_threads(method))
    )
    assert threads < chunked < whole
    cost = cost_of_step(method, Eager(method), source(), method.players(), 16)
    assert whole - chunked == 12 * cost.task_bytes > 0


def test_advice_names_a_chunk_that_fits(monkeypatch) -> None:
    executor = Eager(Prototypes())
    monkeypatch.setattr("fewshot_bench.engine.memory.free_memory", lambda device: 10_000)
    with logged() as lines:
        warn_of_cost(Cost(0, 5_000, 100), executor, 32, CPU)
        assert not lines
        warn_of_cost(Cost(0, 1_000 + 32 * 1_000, 1_000), executor, 32, CPU)
        warn_of_cost(Cost(0, 50_000, 40_000), executor, 1, CPU)
    assert "--task-chunk 8 fits" in lines[0]
    assert "a smaller task" in lines[1]


def test_columns_keep_late_names_and_gaps() -> None:
    table = Columns()
    table.append({"a": 1.0})
    table.append({"a": 2.0, "b": 3.0})
    table.append({"b": 4.0})
    assert len(table) == 3
    assert table.last() == {"b": 4.0}
    a, b = table.arrays()["a"], table.arrays()["b"]
    assert np.array_equal(a, [1, 2, math.nan], equal_nan=True)
    assert np.array_equal(b, [math.nan, 3, 4], equal_nan=True)


def test_a_kernel_is_counted_once() -> None:
    """torch's own summary of a GPU has its time at the operation that launched it, too."""

    def seen(key, kind, device_us, cpu_us=0.0, annotation=False):
        return SimpleNamespace(
            key=key, device_type=kind, self_device_time_total=device_us,
            self_cpu_time_total=cpu_us, count=6, is_user_annotation=annotation,
        )  # fmt: skip

    averages = [
        seen("aten::mm", DeviceType.CPU, 3000.0, 90.0),
        seen("gemm", DeviceType.CUDA, 3000.0),
        seen("relu" + 500 * "x", DeviceType.CUDA, 1000.0),
        seen("Optimizer.step", DeviceType.CUDA, 4000.0, annotation=True),
    ]
    on_gpu = [line.split() for line in table(averages, gpu=True).splitlines()[1:]]
    assert on_gpu[0] == ["75.0%", "1.00", "2", "gemm"]
    assert on_gpu[1][0] == "25.0%"
    assert len(on_gpu[1][3]) == 100
    assert len(on_gpu) == 2
    on_cpu = table(averages, gpu=False).splitlines()
    assert on_cpu[1].split() == ["100.0%", "0.03", "2", "aten::mm"]


@pytest.mark.parametrize(("gpu", "begun"), [(True, 5), (False, 2)])
def test_on_a_gpu_the_profile_begins_behind_the_capture(gpu, begun, monkeypatch, tmp_path) -> None:
    class Profiler:
        def __init__(self, **_):
            self.key_averages, self.export_chrome_trace = list, print

        def __enter__(self):
            self.begun = trainer.step
            seen.append(self)
            return self

        def __exit__(self, *_):
            assert trainer.step == begun + 3

    seen, method = [], Prototypes()
    monkeypatch.setattr("fewshot_bench.engine.profiling.is_gpu", lambda _: gpu)
    monkeypatch.setattr("fewshot_bench.engine.profiling.profile", Profiler)
    runs = Eager(method)
    trainer = Trainer(method, runs, source(), Plan(PROFILED, 4))
    with runs.running():
        profile_steps(trainer, tmp_path)
    assert [profiler.begun for profiler in seen] == [begun]
    assert begun > trainer.timer.warmup or not gpu  # captured in the step after those


@pytest.mark.parametrize("executor", [Eager, two_threads])
def test_a_profile_is_a_trace_and_ten_operations(executor, tmp_path) -> None:
    method = Prototypes()
    runs = executor(method)
    with runs.running():
        table = profile_steps(Trainer(method, runs, source(), Plan(PROFILED, 4)), tmp_path)
    lines = table.splitlines()
    assert len(lines) == 11
    assert "aten::addmm" in (tmp_path / "trace.json").read_text("utf-8")  # the network's own
    shares = [float(line.split("%")[0]) for line in lines[1:]]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 100.1
    events = json.loads((tmp_path / "trace.json").read_text("utf-8"))["traceEvents"]
    assert len(events) > 100
