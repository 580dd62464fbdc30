"""Trainings whose turns are replays of a graph: the direct way's numbers, whatever runs between.

The graph is a stand-in that runs on a CPU (replaying.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from fewshot_bench.engine.evaluation import evaluate
from fewshot_bench.engine.executors import CudaGraphs, Eager
from fewshot_bench.engine.training import History, Plan, Trainer
from fewshot_bench.method import Losses, Method, cross_entropy
from fewshot_bench.utils.devices import HostClock
from tests.engine.replaying import Graph, let_optimizers_be_captured, stand_in_for_graphs
from tests.engine.toys import TASK, Prototypes, logged, source

STEPS, WARM = 12, 3
BOUND = 1e-3  # Adam rounds otherwise where its rate and its step are tensors
JUNK: list[list[torch.Tensor]] = []


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> type[Graph]:
    """Of a device whose numbers are read once a window, as a GPU's are."""
    monkeypatch.setattr("fewshot_bench.engine.training.is_gpu", lambda _: True)
    let_optimizers_be_captured(monkeypatch)
    # The host compares the states of its own generators meanwhile, of which a graph sees nothing.
    monkeypatch.setattr("fewshot_bench.sampling.base.global_generators", dict)

    monkeypatch.setattr("fewshot_bench.engine.executors.graph.EventClock", lambda _: HostClock())
    return stand_in_for_graphs(monkeypatch)


class Cached(Prototypes):
    """Scales classes by a table that depends on the way, made when it is first needed."""

    buffer = False

    def __init__(self) -> None:
        super().__init__()
        if self.buffer:
            self.register_buffer("table", None, persistent=False)
        else:
            self.table: torch.Tensor | None = None

    def scale(self, way: int) -> torch.Tensor:
        if self.table is None or len(self.table) != way:
            self.table = torch.linspace(1, 2, way)
        return self.table

    def predict(self, state: Any, query: Any) -> Any:
        return super().predict(state, query) * self.scale(state.shape[1])

    def losses(self, episode: Any) -> Losses:
        logits = self.predict(self.adapt(episode.support), episode.query)
        return Losses({"meta": cross_entropy(logits, episode.target)})


class CachedInBuffer(Cached):
    buffer = True


class CachedByWay(Cached):
    """Keeps every table that it has made, so that none is freed."""

    def scale(self, way: int) -> torch.Tensor:
        tables = self.__dict__.setdefault("tables", {})
        if way not in tables:
            tables[way] = torch.linspace(1, 2, way)
        return tables[way]


class Box:
    """An object of a plugin's own, with a tensor in it."""

    table: torch.Tensor | None = None


@dataclass
class Slots:
    """Another kind of one."""

    table: torch.Tensor | None = None


class CachedInObject(Cached):
    box: Any = Box

    def __init__(self) -> None:
        super().__init__()
        self.kept = {"boxes": [self.box()]}

    def scale(self, way: int) -> torch.Tensor:
        box = self.kept["boxes"][0]
        if box.table is None or len(box.table) != way:
            box.table = torch.linspace(1, 2, way)
        return box.table


class CachedInDataclass(CachedInObject):
    box = Slots


class StateInBuffer(Cached):
    """Gives a buffer that its training changes as extra state, and a number that is none."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()), persistent=False)

    def get_extra_state(self) -> Any:
        return {"count": self.count, "none": float("nan"), "array": np.arange(3)}

    def set_extra_state(self, state: Any) -> None:
        self.count.copy_(state["count"])

    def losses(self, episode: Any) -> Losses:
        found = super().losses(episode).players["meta"]
        steps = (self.count + 1).expand(len(found))
        return Losses({"meta": found * (1 + 0.1 * steps)}, buffers={"count": steps})


class Tree(CachedByWay):
    """Holds a cycle."""

    def __init__(self) -> None:
        super().__init__()
        self.root: dict[str, Any] = {"children": []}
        self.root["children"].append({"parent": self.root, "method": [self]})


class Counts(Cached):
    """Each call of its losses changes what the next one does."""

    calls = 0

    def losses(self, episode: Any) -> Losses:
        self.calls += 1
        found = super().losses(episode).players["meta"]
        return Losses({"meta": found * (1 + 0.1 * self.calls)})


class CountsInTensor(Cached):
    """As that, with a tensor that each call replaces."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = {"count": torch.zeros(())}

    def losses(self, episode: Any) -> Losses:
        self.calls["count"] = self.calls["count"] + 1
        found = super().losses(episode).players["meta"]
        return Losses({"meta": found * (1 + 0.1 * self.calls["count"])})


class KeepsWhatItTransformed(Cached):
    """A tensor of torch.func outlives the call that it is of."""

    def losses(self, episode: Any) -> Losses:
        def kept(x: torch.Tensor) -> torch.Tensor:
            self.last = x
            return x.square().sum()

        torch.func.grad(kept)(episode.query.mean((1, 2, 3, 4)))
        return super().losses(episode)


def trained(
    kind: Callable[[], Method], graph: bool, validate_every: int = 4, **options: Any
) -> tuple[History, str, list[str]]:
    """A training that is validated at another way than its own; what ran it, and its log."""
    torch.manual_seed(0)
    method = kind()
    tests = source(seed=2, task=replace(TASK, way=5))

    def validate(step: int) -> float:
        score = float(evaluate(Eager(method), tests, 8, chunk=4).accuracy.mean())
        # In the place of what was freed.
        JUNK.append([torch.full((TASK.way,), 1e6) for _ in range(200)])
        return score

    executor = CudaGraphs(method) if graph else Eager(method)
    plan = Plan(STEPS, 2, validate_every=validate_every, window=2)
    with logged() as lines:
        history = Trainer(method, executor, source(), plan, validate, **options).run()
    JUNK.clear()
    return history, executor.name, lines


def losses(history: History) -> list[float]:
    return [float(value) for value in history.steps.arrays()["loss_meta"]]


@pytest.mark.parametrize(
    ("kind", "captures", "replays"),
    [
        (Prototypes, 1, STEPS - WARM),
        # Every validation replaces the table: the step after it is run directly.
        (Cached, 3, STEPS - WARM - 2),
        (CachedInBuffer, 3, STEPS - WARM - 2),
        (CachedByWay, 2, STEPS - WARM - 1),  # the first one makes a table
        (CachedInObject, 3, STEPS - WARM - 2),
        (CachedInDataclass, 3, STEPS - WARM - 2),
        (StateInBuffer, 3, STEPS - WARM - 2),
        (Tree, 2, STEPS - WARM - 1),
    ],
)
def test_a_tensor_that_a_validation_replaces_is_not_read_again(
    kind: Any, captures: int, replays: int, graphs: type[Graph]
) -> None:
    direct, _, _ = trained(kind, graph=False)
    found, name, lines = trained(kind, graph=True)
    assert losses(found) == pytest.approx(losses(direct), rel=BOUND)
    assert [score for _, score in found.validation] == [score for _, score in direct.validation]
    assert (name, lines) == ("graph", [])
    # Two graphs each time: of the turn, and of its episodes' indices, which are drawn once.
    assert graphs.captures == 2 * captures
    assert graphs.replays == replays + captures


@pytest.mark.parametrize(
    ("kind", "validate_every", "why"),
    [
        (Counts, 4, "each call of the method changes 'calls' of Counts"),
        (CountsInTensor, 4, "each call of the method changes 'calls' of CountsInTensor"),
        (
            KeepsWhatItTransformed,
            4,
            "each call of the method changes 'last' of KeepsWhatItTransformed",
        ),
        (Cached, 1, "'table' of Cached changes from step to step"),
    ],
)
def test_what_changes_at_every_step_runs_directly_and_says_so(
    kind: Any, validate_every: int, why: str, graphs: type[Graph]
) -> None:
    direct, _, _ = trained(kind, graph=False, validate_every=validate_every)
    found, name, lines = trained(kind, graph=True, validate_every=validate_every)
    assert losses(found) == pytest.approx(losses(direct), rel=BOUND)
    assert name == "eager"
    assert lines == [f"engine: eager, because no CUDA graph could be captured: {why}"]
