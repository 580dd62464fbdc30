"""A result depends on weights and keys, not on threads, batches, or what ran before.

Four things are errors that name the layer, the line or the call: ``nn.BatchNorm2d`` in training
mode, a buffer that a forward pass changes, a task whose prediction depends on the other tasks of
its batch, and, at test, a random number that is not drawn from a key. Random numbers without a key
in training are reported once, on the screen and in the record.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fewshot_bench import run
from fewshot_bench.engine.evaluation import measured
from fewshot_bench.engine.executors import Eager, TaskThreads
from fewshot_bench.engine.inspection import inspect_test, inspect_training
from fewshot_bench.engine.training import Plan, Trainer
from fewshot_bench.errors import PluginError
from fewshot_bench.method import Method, accuracy
from fewshot_bench.nn import Frozen, TaskBatchNorm
from fewshot_bench.sampling.base import ClosedSampler, EpisodeSource
from fewshot_bench.testing import TINY, tiny_episode
from fewshot_bench.testing.method_checks import MethodSubject
from tests.engine.toys import logged
from tests.honesty.means import Means


class Net(nn.Module):
    """A linear layer, and something behind it."""

    out_shape = (4, 1, 1)

    def __init__(self, behind: Any) -> None:
        super().__init__()
        self.flat, self.linear = nn.Flatten(), nn.Linear(36, 4)
        self.behind = behind
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Any) -> Any:
        return self.behind(self.linear(self.flat(x)))[..., None, None]


def over(behind: Any) -> Method:
    torch.manual_seed(0)
    return Means(TINY, Net(behind))


def look(method: Method, tasks: int = 2) -> list[str]:
    """What a run looks at before it trains."""
    episode = tiny_episode(tasks=tasks, dtype=torch.float32)
    return inspect_training(Eager(method), episode, episode)


def trained(runs: Eager, steps: int = 2) -> Trainer:
    source = EpisodeSource(ClosedSampler(MethodSubject(Means, task=TINY).table("train"), TINY, 0))
    trainer = Trainer(runs.method, runs, source, Plan(steps, 2))
    with logged() as lines, runs.running():
        trainer.run()
    notes = [line.partition(": ")[2] for line in lines]
    assert notes == list(filter(None, [trainer.history.unkeyed]))
    return trainer


@pytest.mark.parametrize(
    ("behind", "named"),
    [
        (nn.BatchNorm1d(4), r"backbone.behind' \(torch.nn.BatchNorm1d\)"),
        (nn.BatchNorm1d(4, track_running_stats=False), r"backbone.behind' \(torch.nn.BatchNorm1d"),
        (
            lambda x: F.batch_norm(x, None, None, training=True),
            r"batch_norm\(\) at test_hidden_state.py:\d+ in 'backbone' \(Net\)",
        ),
    ],
    ids=["layer", "without running statistics", "function"],
)
def test_statistics_over_everything_in_a_batch_are_an_error(behind: Any, named: str) -> None:
    """Plain batch normalization in training mode mixes tasks; it is refused before training."""
    with pytest.raises(PluginError, match=f"(?s){named}.*TaskBatchNorm"):
        look(over(behind))
    look(over(nn.GroupNorm(2, 4)))


def test_plain_batch_normalization_that_stays_in_evaluation_mode_is_right() -> None:
    """A pretrained network with nn.BatchNorm2d works inside Frozen, and does not change."""
    method = Means(TINY, Frozen(Net(nn.BatchNorm1d(4))))
    before = {name: value.clone() for name, value in method.state_dict().items()}
    assert look(method) == []
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


@pytest.mark.parametrize("engine", [Eager, lambda method: TaskThreads(method, threads=2)])
@pytest.mark.parametrize("at_test", [False, True], ids=["in training", "at test"])
@pytest.mark.parametrize("how", ["in place", "replaced", "a parameter"])
def test_a_tensor_that_a_call_changes_is_an_error(how: str, at_test: bool, engine: Any) -> None:
    """A network that changes its own buffer or weight in a call is refused in either mode."""

    class Changing(Net):
        def forward(self, x: Any) -> Any:
            if self.training != at_test:
                if how == "in place":
                    self.calls += 1
                elif how == "replaced":
                    self.calls = self.calls + 1
                else:
                    self.linear.bias.data = self.linear.bias.data + 0
                    with torch.no_grad():
                        self.linear.bias.add_(0)
            return super().forward(x)

    runs, episode = engine(Means(TINY, Changing(nn.Identity()))), tiny_episode(dtype=torch.float32)
    players = runs.method.train(not at_test).players()

    def call() -> None:
        _ = runs.predict(episode) if at_test else runs.gradients(episode, players, ("meta",))

    with runs.running(), pytest.raises(PluginError, match=r"changes '(calls|bias)' of 'backbone"):
        call()


class Across(Means):
    """Centers the class means by those of all tasks of a batch."""

    def adapt(self, support: Any) -> Any:
        means = super().adapt(support)
        return means - 0.3 * means.mean((0, 1), keepdim=True)


class AcrossInTraining(Means):
    """Takes its loss of features that are weighted by their mean over all tasks of a batch."""

    weighted = False

    def losses(self, episode: Any) -> Any:
        self.weighted = True
        try:
            return super().losses(episode)
        finally:
            self.weighted = False

    def embed(self, images: Any) -> Any:
        features = super().embed(images)
        return features * features.mean((0, 1)) if self.weighted else features


class Declared(Across):
    batchable = False


class Appends(nn.Module):
    """Normalizes two further images with each call: rows of one task among those of another."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = TaskBatchNorm(4)

    def forward(self, x: Any) -> Any:
        return self.norm(torch.cat([x, 9 + x[:2]]))[:-2]


@pytest.mark.parametrize(
    ("liar", "told"),
    [
        (Across, r"predict\(\) gives other logits"),
        (AcrossInTraining, r"losses\(\) gives another loss of player 'meta'"),
        (lambda task, _: Means(task, Net(Appends())), r"predict\(\) gives other logits"),
    ],
    ids=["at test", "in training", "in the backbone"],
)
def test_tasks_that_influence_each_other_are_an_error(liar: Any, told: str) -> None:
    """A mean over the tasks of a batch, which an engine that runs task by task would hide, is
    detected.
    """
    torch.manual_seed(0)
    method, episode = liar(TINY, Net(nn.Identity())), tiny_episode(tasks=2, dtype=torch.float32)
    executor = TaskThreads(method)

    def inspect() -> None:
        inspect_test(executor, episode)
        inspect_training(executor, episode, episode)

    with pytest.raises(PluginError, match=rf"{told}.*declare batchable = False"):
        inspect()


def test_tasks_that_influence_each_other_by_declaration_are_right() -> None:
    """A method with ``batchable = False`` is always run with whole batches."""
    torch.manual_seed(0)
    method, episode = Declared(TINY, Net(nn.Identity())), tiny_episode(tasks=2, dtype=torch.float32)
    assert inspect_test(Eager(method), episode) == []
    assert inspect_training(Eager(method), episode, episode) == []


DRAWS: dict[str, tuple[Any, str]] = {
    "layer": (nn.Dropout(0.5), r"torch's.*: 'backbone.behind' \(torch.nn.Dropout\)"),
    "function": (lambda x: F.dropout(x, 0.5), r"dropout\(\) at test_hidden_state.py:\d+"),
    "torch.rand": (lambda x: x + torch.rand(4), r"rand\(\) at test_hidden_state.py:\d+"),
    "numpy": (lambda x: x + float(np.random.rand()), "numpy's global generator"),
    "python": (lambda x: x + random.random(), "Python's random module"),
}


@pytest.mark.parametrize("what", DRAWS)
def test_draws_without_a_key_in_training_are_reported_and_recorded(what: str) -> None:
    """Dropout and other draws from a global generator in training give a note with their line."""
    behind, named = DRAWS[what]
    drawn = trained(Eager(over(behind))).history.unkeyed
    assert drawn.startswith("not repeatable: Means.losses() draws random numbers from ")
    assert re.search(named, drawn), drawn
    assert trained(Eager(over(nn.Identity()))).history.unkeyed == ""


@pytest.mark.parametrize("what", [name for name in DRAWS if name != "layer"])
@pytest.mark.parametrize("engine", [Eager, lambda method: TaskThreads(method, threads=2)])
def test_draws_without_a_key_at_test_are_an_error(what: str, engine: Any) -> None:
    """A prediction that draws from a global generator would differ the next time: an error."""
    behind, named = DRAWS[what]
    runs = engine(over(behind).eval())
    with runs.running(), pytest.raises(PluginError, match=f"at test from .*{named}"):
        runs.predict(tiny_episode(dtype=torch.float32))


def test_draws_at_a_later_step_are_reported() -> None:
    """A method that draws at a later step only is reported at that step."""

    class Later(Net):
        steps = 0

        def forward(self, x: Any) -> Any:
            Later.steps += 1
            return super().forward(x) + (torch.rand(()) if Later.steps > 12 else 0)

    assert trained(Eager(Means(TINY, Later(nn.Identity()))), 8).history.unkeyed


def test_numbers_of_a_generator_of_its_own_are_noticed() -> None:
    """A method's own unseeded generator gives other numbers the second time: detected."""
    noise = np.random.default_rng()
    method = over(lambda x: x + float(noise.normal()) * x.new_tensor([5.0, -3, 1, 9]).relu() * x)
    with pytest.raises(PluginError, match="other predictions for the same episode"):
        inspect_test(Eager(method), tiny_episode(dtype=torch.float32))
    (told,) = look(method)
    assert told.startswith("not repeatable: Means.losses() gives other losses")


@pytest.mark.parametrize("draw", [lambda: torch.rand(()), np.random.rand, random.random])
def test_a_sampler_and_a_metric_that_draw_are_errors(draw: Callable[[], Any]) -> None:
    """A sampler or metric that draws from a global generator gives no episode and no score."""

    class Drawing(ClosedSampler):
        def __call__(self, ids: Any) -> Any:
            draw()
            return super().__call__(ids)

    table = MethodSubject(Means, task=TINY).table("test")
    with pytest.raises(PluginError, match="its episodes would differ next time"):
        EpisodeSource(Drawing(table, TINY, 0)).batch(range(1))

    def noisy(logits: Any, target: Any) -> Any:
        return accuracy(logits, target) + 0 * float(draw())

    with pytest.raises(PluginError, match="its scores would differ the next time"):
        measured("metric 'noisy'", noisy, torch.zeros(2, 3, 3), torch.zeros(2, 3, dtype=torch.long))


def test_the_global_generators_are_left_as_they_are() -> None:
    """The checks before training do not change the numbers of a method that draws."""
    method, episode = over(nn.Dropout(0.5)), tiny_episode(dtype=torch.float32)
    torch.manual_seed(3)
    want = torch.rand(3)
    torch.manual_seed(3)
    inspect_training(Eager(method), episode, episode)
    assert torch.equal(torch.rand(3), want)


MINE = """
import torch
from torch import nn


def drops(image_shape):
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 4), nn.Dropout(), nn.Unflatten(1, (4, 1, 1)))
    net.out_shape = (4, 1, 1)
    return net


def mixes(image_shape):
    net = drops(image_shape)
    net[2] = nn.BatchNorm1d(4)
    return net
"""
SMALL: dict[str, Any] = {
    "dataset": "glyphs", "way": 3, "shot": 1, "query": 2, "train_way": 3, "train_query": 2,
    "steps": 2, "task_batch": 2, "episodes": 4, "validation_episodes": 2,
}  # fmt: skip


def test_a_whole_run_reports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on a backbone with dropout has a note in its record; one on plain batch norm ends."""
    (tmp_path / "mine.py").write_text(MINE, "utf-8")
    monkeypatch.chdir(tmp_path)
    record = run(method="protonet", backbone="./mine.py:drops", **SMALL)
    (note,) = [line for line in record["notes"] if line.startswith("not repeatable")]
    assert "mine.py:drops" in note
    assert "'2' (torch.nn.Dropout)" in note
    with pytest.raises(PluginError, match=r"mine.py:mixes.*'2' \(torch.nn.BatchNorm1d\)"):
        run(method="protonet", backbone="./mine.py:mixes", **SMALL)
