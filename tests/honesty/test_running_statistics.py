"""A network is tested with the batch norm statistics measured in training, whatever its method
does.

The engine collects the running statistics of batch normalization around ``losses``. A method that
hides every pass of a layer from them is refused before training; one whose statistics did not
change is refused after it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fewshot_bench.engine.executors import Eager, TaskThreads
from fewshot_bench.engine.inspection import (
    compare_modes,
    inspect_test,
    inspect_trained,
    inspect_training,
)
from fewshot_bench.engine.training import Plan, Trainer
from fewshot_bench.errors import PluginError
from fewshot_bench.method import Losses, Method, cross_entropy
from fewshot_bench.nn import Frozen, per_task, stop, task_weights, unobserved
from fewshot_bench.testing import TINY, TinyBackbone, check_method, tiny_episode
from fewshot_bench.testing.method_checks import MethodSubject
from tests.honesty.means import Means

LAYERS = {f"backbone.layers.{i}.running_{what}" for i in (1, 4) for what in ("mean", "var")}


class Own(Means):
    """With losses of its own that say nothing of statistics."""

    def losses(self, episode: Any) -> Losses:
        logits = self.predict(self.adapt(episode.support), episode.query)
        return Losses({"meta": cross_entropy(logits, episode.target)})


class Scaled(Own):
    """With a parameter of its own."""

    def __init__(self, task: Any, backbone: Any) -> None:
        super().__init__(task, backbone)
        self.scale = nn.Parameter(torch.ones(()))

    def predict(self, state: Any, query: Any) -> Any:
        return self.scale * super().predict(state, query)


class Hiding(Own):
    """Every pass of its losses is hidden from the running statistics."""

    def losses(self, episode: Any) -> Losses:
        with unobserved():
            return super().losses(episode)


class InnerLoop(Own):
    """Classifies with weights of each task, as Reptile and MAML do."""

    def adapt(self, support: Any) -> Any:
        return task_weights(self.backbone, len(support.key))

    def predict(self, state: Any, query: Any) -> Any:
        return per_task(self.backbone, query, state).flatten(2)[..., : self.task.way]


class Gradientless(Own):
    """Measures under no_grad and trains on the side."""

    def losses(self, episode: Any) -> Losses:
        with torch.no_grad():
            super().losses(episode)
        weight = next(self.parameters())
        return Losses({"meta": weight.sum() * episode.query.flatten(1).mean(1)})


class Alone(Own):
    """Runs its network on all tasks as one batch, outside of per_task, and by per_task too."""

    def losses(self, episode: Any) -> Losses:
        self.backbone(episode.query.flatten(0, 1))
        return super().losses(episode)


def build(kind: type[Method], **settings: Any) -> Method:
    torch.manual_seed(0)
    backbone = settings.pop("backbone", None) or TinyBackbone(statistics="running")
    return kind(TINY, backbone, **settings).train()


def collected(runs: Eager, tasks: int = 4) -> dict[str, torch.Tensor]:
    episode = tiny_episode(tasks=tasks, dtype=torch.float32)
    with runs.running():
        return runs.gradients(episode, runs.method.players(), ("meta",)).buffers


@pytest.mark.parametrize("kind", [Own, InnerLoop, Gradientless, Alone])
@pytest.mark.parametrize(
    "engine",
    [
        Eager,
        lambda method: TaskThreads(method, threads=2),
        lambda method: Eager(method, task_chunk=3),
        lambda method: Eager(method, strategy="batched"),
        lambda method: Eager(method, strategy="im2col"),
    ],
    ids=["eager", "threads", "chunks", "batched", "im2col"],
)
def test_statistics_are_collected_around_losses(kind: type[Method], engine: Any) -> None:
    """A method overrides losses and ignores running statistics: they are collected."""
    found, alone = collected(engine(build(kind))), collected(Eager(build(kind)))
    assert set(found) == LAYERS
    for name, value in found.items():
        assert value.shape == (4, 3)
        if kind is not Alone:  # which mixes its tasks, so that parts of the batch differ
            torch.testing.assert_close(value, alone[name], rtol=1e-4, atol=1e-5)


def test_a_layer_that_only_some_tasks_pass_is_averaged_over_those() -> None:
    """A method runs its network for some tasks only: the statistics are the mean over these."""

    class Some(Own):
        def losses(self, episode: Any) -> Losses:
            if int(episode.class_ids[0, 0]) % 2 == 0:
                return super().losses(episode)
            return Losses({"meta": next(self.parameters()).sum().expand(len(episode))})

    found = collected(TaskThreads(build(Some), threads=2))
    assert set(found) == LAYERS
    assert {len(value) for value in found.values()} == {2}


def test_a_frozen_network_does_not_change() -> None:
    """A frozen network inside a method that trains keeps its parameters and its statistics."""
    frozen = Frozen(TinyBackbone(statistics="running"))
    method = build(Scaled, backbone=frozen)
    assert frozen.out_shape == frozen.module.out_shape
    assert not frozen.module.training
    assert list(method.players()["meta"].parameters) == ["scale"]
    assert collected(Eager(method)) == {}


def test_a_method_that_hides_its_passes_is_refused_before_it_trains() -> None:
    """A method whose passes are all inside unobserved() is an error before training."""
    episode = tiny_episode(dtype=torch.float32)
    with pytest.raises(PluginError, match=r"'backbone.layers.1' never move.*unobserved"):
        inspect_training(Eager(build(Hiding)), episode, episode)
    assert inspect_training(Eager(build(Own)), episode, episode) == []


def test_statistics_that_did_not_change_are_refused_after_training() -> None:
    """A layer with momentum 0 trains with batch statistics and is refused at the end."""
    backbone, episode = TinyBackbone(statistics="running"), tiny_episode(dtype=torch.float32)
    backbone.layers[1].momentum = 0.0
    runs = Eager(build(Own, backbone=backbone))
    Trainer(runs.method, runs, MethodSubject(Own).source("train"), Plan(2, 2))
    with pytest.raises(PluginError, match="mean 0 and variance 1"):
        inspect_trained(runs, episode, episode)
    backbone.layers[1].running_mean += 1
    backbone.layers[4].running_mean += 1
    inspect_trained(runs, episode, episode)


def test_a_test_with_initial_statistics_is_reported() -> None:
    """A network without measured statistics normalizes with mean 0 and variance 1; the record says
    so.
    """
    (told,) = inspect_test(Eager(build(Own)), tiny_episode(dtype=torch.float32))
    assert told.startswith("2 layers (the first: 'backbone.layers.1') normalize by mean 0")


def test_a_run_compares_the_modes() -> None:
    """A method that is good in training mode and at chance level in evaluation mode is reported."""

    class Forgetful(Own):
        def predict(self, state: Any, query: Any) -> Any:
            logits = super().predict(state, query)
            return logits if self.training else logits.roll(1, dims=-1)

    episode = tiny_episode(tasks=16, dtype=torch.float32)
    for runs in (Eager(build(Forgetful)), TaskThreads(build(Forgetful), threads=2)):
        with runs.running():
            (told,) = compare_modes(runs, episode)
        assert told.startswith("evaluation mode is far behind training mode: with the same weights")
    batch = TinyBackbone(statistics="batch")
    assert compare_modes(Eager(build(Own, backbone=batch)), episode) == []


def test_the_check_suite_compares_the_modes() -> None:
    """A method that is tested differently than it was trained fails fsb check, which says why."""

    class Forgetful(Own):
        def predict(self, state: Any, query: Any) -> Any:
            logits = super().predict(state, query)
            return logits if self.training else logits.roll(1, dims=-1)

    (modes,) = check_method(Forgetful, only=["modes"])
    assert modes.status == "failed"
    assert "in training mode and" in modes.message
    (hidden,) = check_method(Hiding, only=["at-run-time"])
    assert hidden.status == "failed"
    assert "never move" in hidden.message


def test_reptile_of_the_documentation_learns_on_running_statistics(tmp_path: Path) -> None:
    """Reptile, whose loss is not a loss of predictions, classifies with the statistics of its
    training.
    """
    page = (Path(__file__).parents[2] / "docs/concepts/reptile.md").read_text("utf-8")
    source = page.split("```python\n")[1].split("```")[0]
    assert stop.__name__ in source
    names: dict[str, Any] = {}
    exec(compile(source, "my_reptile.py", "exec"), names)  # noqa: S102 - our own page
    outcomes = check_method(names["Reptile"], only=["modes", "beats-chance", "at-run-time"])
    assert [(o.id, o.message) for o in outcomes if o.status != "passed"] == []
    method = MethodSubject(names["Reptile"]).trained
    assert all(float(b.abs().sum()) > 0 for n, b in method.named_buffers() if "mean" in n)
