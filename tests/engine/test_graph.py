"""What a captured step is made of, with a stand-in for CUDA graphs: they run, and run again."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fewshot_bench.engine.executors import CudaGraphs, Gradients, graph
from fewshot_bench.engine.executors.base import Packed
from fewshot_bench.engine.executors.graph import Ahead
from fewshot_bench.engine.timing import StepTimer
from fewshot_bench.engine.training import Plan, Trainer
from fewshot_bench.errors import PluginError
from tests.engine.toys import Prototypes, logged, source

CPU = torch.device("cpu")


def stand_in_for_cuda(
    monkeypatch: pytest.MonkeyPatch, capture: Callable[[], AbstractContextManager[Any]]
) -> None:
    """A graph whose capture does the work at once; what a replay does is up to the test."""
    monkeypatch.setattr("torch.cuda.CUDAGraph", lambda: SimpleNamespace(replay=lambda: None))
    monkeypatch.setattr("torch.cuda.graph", lambda *_, **__: capture())
    monkeypatch.setattr("torch.cuda.current_stream", lambda _: None)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_for_cuda(monkeypatch, nullcontext)


def drawn_anew(ahead: Ahead, episodes: Any) -> None:
    """A replay: once more what was captured, on the tensors that it read."""
    ahead.indices = episodes.indices(ahead.ids())


class Inputs(TorchDispatchMode):
    """Notes the tensors that are read and were not made meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[torch.Tensor] = []
        self.made: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [value for value in tree_leaves(args) if isinstance(value, torch.Tensor)]
        self.read += [t for t in tensors if not any(t is own for own in self.made)]
        result = func(*args, **(kwargs or {}))
        self.made += [value for value in tree_leaves(result) if isinstance(value, torch.Tensor)]
        return result


def test_what_a_graph_reads_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor that was made for a graph and then freed would be overwritten before a replay."""
    inputs = Inputs()
    stand_in_for_cuda(monkeypatch, lambda: inputs)
    episodes = source()
    episodes.batch(range(1))
    ahead = Ahead(episodes, 4, 4, CPU)
    # Bytes are the states of the host's generators, which are compared beside.
    read = [weakref.ref(tensor) for tensor in inputs.read if tensor.dtype == torch.int64]
    assert len(read) > 3
    inputs.read, inputs.made = [], []
    gc.collect()
    assert all(ref() is not None for ref in read)
    assert ahead.turns > 1


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("every", [4, 8])  # 8: two turns of a step, or labeled ones between
def test_indices_ahead_are_those_of_each_batch(every: int) -> None:
    episodes = source()
    ahead = Ahead(episodes, 4, every, CPU)
    ahead.graph = SimpleNamespace(replay=lambda: drawn_anew(ahead, episodes))  # type: ignore[assignment]
    draws = 0
    for turn in range(2 * ahead.turns + 3):
        first = 4 + turn * every  # not from 0: a training that goes on from a checkpoint
        if not ahead.holds(first):
            ahead.draw(first)
            draws += 1
        ahead.go_to(first)
        got, want = ahead.episode(), episodes.batch(range(first, first + 4))
        assert torch.equal(got.query, want.query)
        assert torch.equal(got.key, want.key)
    assert draws == 3


@pytest.mark.usefixtures("stand_in")
def test_as_many_ahead_as_memory_bears() -> None:
    assert Ahead(source(), 4, 4, CPU).turns == graph.STEPS_AHEAD
    assert Ahead(source(), graph.AHEAD, graph.AHEAD, CPU).turns == 1


def test_work_for_several_turns_is_charged_to_each(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0, 8_000_000, 10_000_000, 13_000_000, 20_000_000, 21_000_000])  # ns
    monkeypatch.setattr("time.perf_counter_ns", lambda: next(clock))
    timer = StepTimer(CPU, warmup=0)
    drawn = timer.clock.now(), timer.clock.now(), 4
    inside = [10_000_000, 10_500_000, 12_000_000, 13_000_000]
    timer.start()
    timer.replayed(inside, drawn)
    timer.start()
    timer.replayed([20_000_000, 20_100_000, 20_600_000, 21_000_000], drawn)
    timer.flush()
    columns = timer.columns()
    assert columns["step_ms"].tolist() == [3 + 2, 1 + 2]
    assert columns["sample_ms"].tolist() == pytest.approx([2.5, 2.1])
    assert columns["forward_backward_ms"].tolist() == pytest.approx([1.5, 0.5])


def test_numbers_leave_in_one_tensor_and_come_back() -> None:
    results = [
        Gradients({"meta": torch.tensor([1.0 + i, 2.0])}, {"meta": [torch.ones(3)]},
                  {"accuracy": torch.tensor([0.5, 0.25])}, {"b": torch.ones(2)},
                  {"meta": torch.tensor(3.0)}, {"meta": torch.tensor(4.0 + i)})
        for i in range(2)
    ]  # fmt: skip
    packed = Packed(results)
    assert packed.values.tolist() == [1, 2, 0.5, 0.25, 3, 4, 2, 2, 0.5, 0.25, 3, 5]
    again = packed.unpacked(packed.values + 1)
    assert again[1].losses["meta"].tolist() == [3, 3]
    assert again[1].weights["meta"].shape == ()
    assert float(again[0].norms["meta"]) == 4
    assert again[0].log["accuracy"].tolist() == [1.5, 1.25]


def test_a_number_on_the_host_is_packed_with_those_of_the_device() -> None:
    """Here the other device is one that holds no numbers; the losses decide which it is."""
    losses = {"meta": torch.ones(2, device="meta")}
    logged = Gradients(losses, {}, {"given by hand": torch.ones(2)}, {})
    assert Packed([logged]).values.device.type == "meta"


def test_why_a_capture_failed_is_the_first_error_s() -> None:
    """To end a capture in which something went wrong raises an error that says less."""
    caught = []
    for first in (RuntimeError("a wait for the device\nand more"), ValueError()):
        try:
            try:
                raise first
            finally:
                raise RuntimeError("operation failed due to a previous error during capture")
        except RuntimeError as error:
            caught.append(graph.capture_error(error))
    assert caught == ["a wait for the device", "ValueError"]
    told = PluginError("M.adapt() raised RuntimeError: no")
    told.__context__ = RuntimeError("no")
    assert graph.capture_error(told) == "M.adapt() raised RuntimeError: no"


def trained_without_graph(**plan: Any) -> tuple[str, list[str]]:
    """The name of what ran a training whose steps could be captured, and what was logged."""
    method = Prototypes()
    executor = CudaGraphs(method)
    with logged() as lines, executor.running():
        Trainer(method, executor, source(), Plan(task_batch=4, **plan)).run()
    return executor.name, lines


@pytest.mark.parametrize(
    ("plan", "why"),
    [({"skip_spikes": 10.0}, "--skip-spikes"), ({"detect_anomaly": True}, "--detect-anomaly")],
)
def test_what_reads_numbers_in_every_step_runs_eagerly_and_says_so(plan: Any, why: str) -> None:
    name, lines = trained_without_graph(steps=5, **plan)
    assert name == "eager"
    assert lines == [
        f"engine: eager, because no CUDA graph could be captured: {why} reads numbers in every step"
    ]
