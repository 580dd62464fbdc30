"""Numbers that stop being finite are told by player, step and operation; spikes are skipped."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from fewshot_bench.engine.anomalies import LEAST, SpikeGuard
from fewshot_bench.engine.executors import Eager
from fewshot_bench.engine.training import Plan, Trainer
from fewshot_bench.errors import Diverged
from tests.engine.toys import Prototypes, TwoPlayers, source, two_threads

PLAN = Plan(steps=6, task_batch=2)


def trained(method: Any, plan: Plan = PLAN, executor: Any = Eager, **more: Any) -> Trainer:
    chosen = executor(method)
    trainer = Trainer(method, chosen, source(), plan, **more)
    with chosen.running():
        trainer.run()
    return trainer


class Fails(TwoPlayers):
    """The forger's loss takes a logarithm of 0 in step ``at``, forward or backward."""

    at, way = 3, "loss"

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def losses(self, episode: Any) -> Any:
        found = super().losses(episode)
        self.calls += 1
        if self.calls == 2 * self.at:  # two turns a step: the forger's is the second
            size = self.forger.weight.square().sum()
            zero = size - size
            bad = torch.log(zero) if self.way == "loss" else torch.sqrt(zero)
            players = found.players
            found = replace(found, players={**players, "forger": players["forger"] + bad})
        return found


@pytest.mark.parametrize("way", ["loss", "gradient"])
def test_player_and_step_are_told(way: str) -> None:
    method = Fails()
    method.way = way
    with pytest.raises(Diverged) as caught:
        trained(method)
    error = caught.value
    assert (error.step, error.player, error.what) == (3, "forger", way)
    assert "--detect-anomaly names the operation" in str(error)
    assert all(bool(torch.isfinite(v).all()) for v in method.state_dict().values())


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("loss", ("'log' in test_finite.py, line ",)),
        ("gradient", ("in the backward pass (SqrtBackward) of test_finite.py, line ",)),
    ],
)
def test_detect_anomaly_names_the_operation(way: str, words: tuple[str, ...]) -> None:
    method = Fails()
    method.way = way
    with pytest.raises(Diverged) as caught:
        trained(method, replace(PLAN, detect_anomaly=True))
    for word in words:
        assert word in str(caught.value)
    assert "--detect-anomaly" not in str(caught.value)
    assert not torch.is_anomaly_enabled()


def test_detect_anomaly_changes_no_number() -> None:
    weights = []
    for looked in (False, True):
        torch.manual_seed(0)
        method = Prototypes()
        trained(method, replace(PLAN, detect_anomaly=looked))
        weights.append(method.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_mask_of_infinities_is_no_fault() -> None:
    class Masked(Prototypes):
        def predict(self, state: Any, query: Any) -> Any:
            logits = super().predict(state, query)
            hidden = torch.zeros_like(logits, dtype=torch.bool)
            return torch.maximum(logits, logits.masked_fill(~hidden, -math.inf))

    trained(Masked(), replace(PLAN, detect_anomaly=True))


def test_a_weight_that_is_not_finite_is_told_in_its_step() -> None:
    class Jumps(torch.optim.SGD):
        """Finite gradients, and a weight that is not after the second step."""

        def step(self, closure: Any = None) -> None:
            super().step()
            self.count = getattr(self, "count", 0) + 1
            if self.count == 2:
                with torch.no_grad():
                    self.param_groups[0]["params"][0][0] = math.inf

    class Heavy(Prototypes):
        def players(self) -> Any:
            own = super().players()["meta"]
            return {"meta": replace(own, optimizer=lambda p: Jumps(p, lr=1e-3))}

    method = Heavy()
    with pytest.raises(Diverged) as caught:
        trained(method)
    assert (caught.value.step, caught.value.player, caught.value.what) == (2, "meta", "weight")
    assert all(bool(torch.isfinite(v).all()) for v in method.state_dict().values())


class Spikes(Prototypes):
    """Its loss is a millionfold in one step."""

    at = LEAST + 3

    def __init__(self) -> None:
        super().__init__(lr=1e-3)
        self.calls = 0

    def losses(self, episode: Any) -> Any:
        found = super().losses(episode)
        self.calls += 1
        if self.calls == self.at:
            found = replace(found, players={n: 1e6 * v for n, v in found.players.items()})
        return found


def test_a_spike_is_skipped_and_counted() -> None:
    trainer = trained(Spikes(), Plan(steps=20, task_batch=2, skip_spikes=1e4))
    assert trainer.guard is not None
    assert trainer.guard.skipped == [Spikes.at]
    assert len(trainer.history.steps) == 20
    assert trained(Spikes(), Plan(steps=20, task_batch=2)).guard is None


def test_a_skipped_step_moves_no_weight_and_no_buffer() -> None:
    method = Spikes()
    seen: list[dict[str, torch.Tensor]] = []

    def log(step: int, numbers: Any) -> None:
        seen.append({n: v.clone() for n, v in method.state_dict().items()})

    trained(method, Plan(steps=20, task_batch=2, skip_spikes=1e4), log=log)
    for i in range(1, 20):
        same = all(torch.equal(seen[i][n], seen[i - 1][n]) for n in seen[i])
        assert same == (i + 1 == Spikes.at)


def test_the_guard_goes_by_the_median_of_what_was_taken() -> None:
    guard = SpikeGuard(10.0)
    for step in range(LEAST):
        assert not guard.spikes({"loss": 1e6 if step == 4 else 1.0}, step)
    assert not guard.spikes({"loss": 10.0}, 11)
    assert guard.spikes({"loss": 10.1}, 12)
    assert guard.spikes({"loss": -11.0}, 13)
    assert guard.spikes({"loss": 1.0, "gradient": 1.0}, 14) is False
    assert guard.skipped == [12, 13]


def test_a_guard_that_is_restored_goes_on_where_it_was() -> None:
    first, second = SpikeGuard(10.0), SpikeGuard(10.0)
    for step in range(LEAST):
        first.spikes({"loss": 1.0}, step)
    assert first.spikes({"loss": 50.0}, 20)
    second.restore(json.loads(json.dumps(first.state())))
    assert second.skipped == [20]
    for guard in (first, second):
        assert guard.spikes({"loss": 11.0}, 21)
        assert not guard.spikes({"loss": 9.0}, 22)
    assert second.state() == first.state()
    assert not SpikeGuard(10.0).spikes({"loss": 11.0}, 21)


def test_threads_skip_the_same_steps() -> None:
    trainer = trained(Spikes(), Plan(steps=4, task_batch=2, skip_spikes=1e4), two_threads)
    assert trainer.guard is not None
    assert trainer.guard.skipped == []
