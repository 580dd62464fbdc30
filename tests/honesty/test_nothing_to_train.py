"""A run without training says so, and whether its weights are random.

A method without a parameter that requires gradients is evaluated as it is; one line on the screen
and in the record says that nothing was trained, another that the weights are random. If one of
several players has nothing to train, it is an error. Weights that stay random because no gradient
reaches them are reported as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from fewshot_bench import run
from fewshot_bench.engine.training import check_players
from fewshot_bench.errors import ConfigError, PluginError
from fewshot_bench.method import Method, Player
from fewshot_bench.runs.evaluate import evaluate_run
from fewshot_bench.testing import TINY, check_method
from tests.command_line import InProcess
from tests.honesty.means import Means

MINE = """
import torch
from torch import nn
from fewshot_bench import Method
from fewshot_bench.nn import Frozen, per_task


def frozen(image_shape):
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 4), nn.Unflatten(1, (4, 1, 1)))
    net.out_shape = (4, 1, 1)
    return Frozen(net)


def pretrained(image_shape):
    net = frozen(image_shape)
    for value in net.parameters():
        torch.nn.init.constant_(value, 0.1)
    return net


class Projected(nn.Module):
    out_shape = (4, 1, 1)

    def __init__(self, image_shape):
        super().__init__()
        self.register_buffer("matrix", torch.randn(784, 4))

    def forward(self, x):
        return (x.flatten(1) @ self.matrix)[..., None, None]


def projected(image_shape):
    return Projected(image_shape)


def pooled(image_shape):
    net = nn.Sequential(nn.AvgPool2d(7))
    net.out_shape = (1, 4, 4)
    return net


class Scaled(Method):
    def __init__(self, task, backbone):
        super().__init__(task, backbone)
        self.scale = nn.Parameter(torch.ones(()))

    def adapt(self, support):
        features = per_task(self.backbone, support.labeled()[0]).flatten(2)
        return features.unflatten(1, support.images.shape[1:3]).mean(2)

    def predict(self, state, query):
        return -self.scale * torch.cdist(per_task(self.backbone, query).flatten(2), state)


class Detached(nn.Sequential):
    def forward(self, x):
        with torch.no_grad():
            return super().forward(x)


def detached(image_shape):
    net = Detached(nn.Flatten(), nn.Linear(784, 4), nn.Unflatten(1, (4, 1, 1)))
    net.out_shape = (4, 1, 1)
    return net
"""
SMALL: dict[str, Any] = {
    "dataset": "glyphs", "way": 3, "shot": 1, "query": 2, "train_way": 3, "train_query": 2,
    "steps": 2, "task_batch": 2, "episodes": 4, "validation_episodes": 2,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(MINE, "utf-8")
    monkeypatch.chdir(tmp_path)


def test_a_frozen_random_backbone_is_reported(fsb: InProcess) -> None:
    """ProtoNet on a frozen random backbone is evaluated, and reported as untrained and random."""
    typed = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    err = fsb("run", "protonet", "--backbone", "./mine.py:frozen", *typed).succeeded().err
    assert "nothing to train here: no parameter of method 'protonet'" in err
    assert "random weights: the backbone has random weights (3,140 numbers" in err


def test_the_record_and_its_evaluations_say_it() -> None:
    """Both sentences are in the record, and in the record of an evaluation of its weights."""
    record = run(method="protonet", backbone="./mine.py:frozen", **SMALL)
    told = [line for line in record["notes"] if line.startswith(("nothing to", "random weights"))]
    assert len(told) == 2
    assert record["training"] is None
    again = evaluate_run(Path("runs") / record["id"], trust_code=True)
    assert [line for line in again["notes"] if line in told] == told


def test_weights_independent_of_the_seed_are_not_called_random() -> None:
    """A backbone that loads its own weights is reported as untrained, and not as random."""
    record = run(method="protonet", backbone="./mine.py:pretrained", **SMALL)
    told = [line for line in record["notes"] if line.startswith(("nothing to", "random weights"))]
    assert len(told) == 1
    assert "nearest-centroid" not in told[0]
    plain = run(method="nearest-centroid", **{k: SMALL[k] for k in ("way", "shot", "query")},
                dataset="glyphs", episodes=4)  # fmt: skip
    assert not [line for line in plain["notes"] if "train here" in line]


def told_by(method: str, **changes: Any) -> list[str]:
    record = run(method=method, **{**SMALL, **changes})
    return [line for line in record["notes"] if line.startswith(("nothing to", "random weights"))]


def test_a_random_buffer_is_reported() -> None:
    """A random projection that is a buffer counts like a random weight."""
    first, second = told_by("protonet", backbone="./mine.py:projected")
    assert "method 'protonet' of fewshot-bench" in first
    assert "has no parameters" in first
    assert "the backbone has random weights (3,136 numbers come from the seed)" in second


def test_a_network_without_any_weight_is_reported() -> None:
    """A method without weights is reported as untrained, and not as random."""
    (told,) = told_by("protonet", backbone="./mine.py:pooled")
    assert "has no parameters; it is evaluated as it is" in told


@pytest.mark.parametrize("backbone", ["detached", "frozen", "projected"])
def test_weights_that_no_gradient_reaches_are_reported(backbone: str) -> None:
    """A scale is trained over a network that no gradient reaches: the network is reported as
    random.
    """
    (told,) = told_by("./mine.py:Scaled", backbone=f"./mine.py:{backbone}")
    assert "the backbone has random weights (3,1" in told
    assert "the training left them as they were" in told
    assert told_by("./mine.py:Scaled", backbone="./mine.py:pretrained") == []


def test_random_weights_without_influence_are_not_reported() -> None:
    """The generator of MetaGAN's control is never trained and never used at test: no report."""
    nothing = dict.fromkeys(
        (
            "outer_real_weight",
            "outer_fake_weight",
            "generator_weight",
            "inner_real_weight",
            "inner_fake_weight",
        ),
        0.0,
    )
    small = {"generator_network": "small", "encoder_network": "small", "generator_z_dim": 4}
    assert told_by("metagan", **small, **nothing) == []


@pytest.mark.parametrize("kind", ["ignored", "cluster", "masked"])
def test_soft_k_means_over_a_frozen_backbone_is_evaluated(kind: str) -> None:
    """A radius or masks that are never used with unlabeled images count as nothing to train."""
    settings = SMALL | {"backbone": "./mine.py:frozen", "distractors_are": kind}
    record = run("soft-kmeans", **settings)
    assert record["training"] is None
    assert any(note.startswith("nothing to train here: ") for note in record["notes"])
    trained = run("soft-kmeans", **settings, unlabeled=2)
    assert (trained["training"] is None) == (kind == "ignored")


def test_an_inner_loop_over_a_detached_backbone_is_an_error() -> None:
    """MAML over a backbone that hides its weights names one of them and says what to do."""
    with pytest.raises(PluginError) as told:
        run("maml", backbone="./mine.py:detached", **SMALL)
    said = str(told.value)
    assert "the inner loss does not depend on 'backbone.1.weight' (2 such weights)" in said
    assert "allow_unused" not in said
    assert said.count("\n") == 0


class Pair(Method):
    wants_backbone = False
    turns = (("one", "two"),)

    def __init__(self, task: Any) -> None:
        super().__init__(task)
        self.one, self.two = nn.Linear(2, 2), nn.Linear(2, 2)

    def players(self) -> dict[str, Player]:
        return {n: Player(dict(getattr(self, n).named_parameters())) for n in ("one", "two")}


def test_one_of_two_players_without_parameters_is_an_error() -> None:
    """One of two players is frozen: the method is refused."""
    method = Pair(TINY)
    method.two.bias.requires_grad_(False)
    assert list(check_players(method)["two"].parameters) == ["weight"]
    method.two.requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing to train here for player 'two' of Pair"):
        check_players(method)
    method.one.requires_grad_(False)
    assert check_players(method) == {}


class Still(Means):
    """Class means of a network that nothing trains."""

    trains = False


def test_a_method_that_declares_no_training_passes() -> None:
    """A method with parameters and trains = False passes fsb check; with players it does not."""
    assert [(o.id, o.message) for o in check_method(Still) if o.status == "failed"] == []
    quiet = type("Quiet", (Still,), {"trains": True, "players": lambda self: {}})
    (found,) = check_method(quiet, only=["players"])
    assert found.status == "failed"
    assert "trains = False" in found.message
    liar = type(
        "Liar", (Still,), {"players": lambda self: {"meta": Player(dict(self.named_parameters()))}}
    )
    (found,) = check_method(liar, only=["players"])
    assert found.status == "failed"
    with pytest.raises(PluginError, match="declares trains = False"):
        check_players(liar(TINY, nn.Linear(2, 2)))
