"""MetaGAN over every installed base, and over one from another distribution."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from fsb_maml.maml import MAML
from fsb_metagan.adapters import OverProtoNet
from fsb_protonet.protonet import ProtoNet
from fsb_relationnet.relationnet import RelationNet

import fewshot_bench
from fewshot_bench.config.resolve import configure
from fewshot_bench.errors import ConfigError
from fewshot_bench.method import Method, cross_entropy
from fewshot_bench.testing import gradient_error
from tests.plugins.metagan_cases import TASK, episode, gradient_of, metagan
from tests.plugins.test_metagan_over_maml import GAN_WEIGHTS, Smooth
from tests.plugins.test_relationnet import smooth

BASES = ("maml", "first-order maml", "relationnet", "protonet")
HEADS = ("logsumexp", "extra")
GENERATOR_LOSSES = ("non_saturating", "feature_matching")


def base(name: str) -> Method:
    torch.manual_seed(1)
    if name == "relationnet":
        return smooth(RelationNet(TASK, Smooth(), hidden=3))
    if name == "protonet":
        return ProtoNet(TASK, Smooth())
    first_order = name.startswith("first")
    return MAML(TASK, Smooth(), inner_lr=0.3, inner_steps=2, first_order=first_order)


@pytest.mark.parametrize(
    ("name", "head", "generator_loss", "update"),
    list(product(BASES, HEADS, GENERATOR_LOSSES, ("joint", "alternating"))),
)
def test_gradients_match_finite_differences(
    name: str, head: str, generator_loss: str, update: str
) -> None:
    method = metagan(base(name), head=head, generator_loss=generator_loss, update=update)
    for turn in method.turns:
        errors = gradient_error(method, episode(), turn, samples=3)
        assert set(errors) == set(turn)
        assert max(errors.values()) < 1e-6


@pytest.mark.parametrize(("head", "kind"), list(product(HEADS, GENERATOR_LOSSES)))
def test_first_order_gradients_are_those_at_the_adapted_weights(
    head: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both by differences, with theta_T a leaf: a term that stops too much is seen, too."""
    method, batch = metagan(base("first-order maml"), head=head, generator_loss=kind), episode()
    expected = gradient_of(method, batch)["discriminator"]
    names = list(method.players()["discriminator"].parameters)
    start = method.learn(batch.support, lambda: method.encode(batch.support))
    theta = {f"base.net.{name}": w.detach().clone() for name, w in start.items()}
    monkeypatch.setattr(
        method,
        "learn",
        lambda support, h_T: {name.removeprefix("base.net."): w for name, w in theta.items()},
    )

    def loss() -> float:
        return method.losses(batch).players["discriminator"].sum().item()

    for name, gradient in zip(names, expected, strict=True):
        w = theta[name]
        where = (slice(None), *(0 for _ in w.shape[1:]))  # every task's copy moves
        w[where] += 1e-6
        above = loss()
        w[where] -= 2e-6
        slope = (above - loss()) / 2e-6
        w[where] += 1e-6
        assert slope == pytest.approx(gradient[where[1:]].item(), rel=1e-5, abs=1e-8), name


@pytest.mark.parametrize("name", ["relationnet", "protonet"])
def test_a_base_without_inner_loop_makes_no_fakes_to_learn_a_task(name: str) -> None:
    method = metagan(base(name))
    made = []
    draw = method.draw
    method.draw = lambda *args: made.append(args[2]) or draw(*args)  # type: ignore[method-assign]
    method.losses(episode())
    assert made == ["query"]
    method.eval().adapt(episode().support)
    assert made == ["query"]


def test_without_gan_weights_a_relation_network_learns_by_its_softmax() -> None:
    alone = smooth(RelationNet(TASK, Smooth(), loss="cross_entropy")).double()
    batch = episode()
    expected = alone.losses(batch).players["meta"]
    own = torch.autograd.grad(expected.sum(), list(alone.parameters()))
    method = metagan(alone, **dict.fromkeys(GAN_WEIGHTS, 0.0))
    assert torch.equal(method.losses(batch).players["discriminator"], expected)
    assert all(map(torch.equal, gradient_of(method, batch)["discriminator"], own))


def test_without_gan_weights_a_protonet_starts_as_itself() -> None:
    """Its scale is learned from there on; a threshold moves all logits of a query alike."""
    alone, batch = ProtoNet(TASK, Smooth()).double(), episode()
    expected = alone.losses(batch).players["meta"]
    method = metagan(alone, **dict.fromkeys(GAN_WEIGHTS, 0.0))
    got = method.losses(batch).players["discriminator"]
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)
    gradients = torch.autograd.grad(got.sum(), [alone.log_scale, alone.threshold])
    assert abs(gradients[0].item()) > 1e-3
    assert abs(gradients[1].item()) < 1e-12


def test_protonet_as_a_discriminator_by_hand() -> None:
    method = ProtoNet(TASK, Smooth())
    OverProtoNet.become_discriminator(method, 0)
    method.double()
    method.embed = lambda images: images.flatten(2)  # type: ignore[method-assign]
    with torch.no_grad():
        method.log_scale.fill_(torch.tensor(3.0).double().log())
        method.threshold.fill_(2.0)
    prototypes = torch.tensor([[[0.0, 0.0], [1.0, 2.0]]]).double()
    image = torch.tensor([1.0, 1.0]).double().view(1, 1, 1, 1, 2)
    # distances 2 and 1, of 2 features: 3 * (2 * 2 - 2) and 3 * (2 * 2 - 1)
    logits, features = OverProtoNet.discriminate(method, prototypes, image)
    assert logits[0, 0].tolist() == pytest.approx([6.0, 9.0], rel=1e-12)
    assert features.tolist() == [[[1.0, 1.0]]]
    assert method.distances(features, prototypes).tolist() == [[[2.0, 1.0]]]


@pytest.mark.parametrize(("name", "head"), list(product(BASES, HEADS)))
def test_predictions_have_a_logit_per_class(name: str, head: str) -> None:
    method, batch = metagan(base(name), head=head).eval(), episode()
    logits = method.predict(method.adapt(batch.support), batch.query)
    assert logits.shape == (2, 6, TASK.way)
    logits, _ = method.discriminate(method.adapt(batch.support), batch.query)
    assert logits.shape == (2, 6, TASK.way + (head == "extra"))


THIRD_PARTY = '''
"""Cosine similarity to class means: a method of somebody else, which imports no fsb_metagan."""
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import nn

from fewshot_bench import Method, hookimpl
from fewshot_bench.nn import per_task


@hookimpl
def register_methods():
    return {"cosine": "somebody:Cosine"}


class Cosine(Method):
    """Class means, compared by cosine similarity."""

    def __init__(self, task, backbone, *, scale: Annotated[float, "at first"] = 10.0):
        super().__init__(task, backbone)
        self.scale = nn.Parameter(torch.tensor(scale))
        self.fake = None

    def embed(self, images):
        return F.normalize(per_task(self.backbone, images).flatten(2), dim=-1)

    def adapt(self, support, inner_loss=None):
        way, shot = support.images.shape[1:3]
        return self.embed(support.images.flatten(1, 2)).unflatten(1, (way, shot)).mean(2)

    def become_discriminator(self, outputs):
        self.fake = nn.Parameter(torch.zeros(outputs))

    def discriminate(self, state, images):
        features = self.embed(images)
        logits = self.scale * features @ state.transpose(1, 2)
        if self.fake is not None:
            logits = torch.cat([logits, self.fake.expand(*logits.shape[:2], -1)], -1)
        return logits, features

    def predict(self, state, query):
        return self.discriminate(state, query)[0]
'''


@pytest.mark.parametrize("head", HEADS)
def test_a_method_from_another_distribution_can_be_wrapped(
    head: str, tmp_path: Any, fake_distribution: Any
) -> None:
    fake_distribution("somebodys-methods", "somebody", THIRD_PARTY)
    record = fewshot_bench.run(
        "metagan", base="cosine", base_scale=5.0, head=head, dataset="glyphs", train_classes=10,
        validation_classes=6, test_classes=6, way=3, shot=1, query=2, steps=2, episodes=3,
        validation_episodes=2, runs_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"),
        backbone_channels=4,
    )  # fmt: skip
    assert record["status"] == "completed"
    named = {(item["name"], item["distribution"]) for item in record["plugins"]}
    assert {("metagan", "fewshot-bench"), ("cosine", "somebodys-methods")} <= named
    assert record["config"]["method_options"]["base_scale"] == 5.0


@pytest.mark.parametrize("name", ["maml", "relationnet", "protonet"])
def test_options_of_a_base_that_metagan_decides_are_not_offered(name: str) -> None:
    given = configure("metagan", base=name).method_options
    assert not {f"base_{own}" for own in ("lr", "anneal", "halve_every", "clip", "loss")} & {*given}


def test_a_method_that_cannot_be_wrapped_is_told_in_a_line(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="cannot wrap 'NearestCentroid', which lacks") as caught:
        fewshot_bench.run(
            "metagan", base="nearest-centroid", dataset="glyphs", runs_dir=str(tmp_path)
        )
    assert "\n" not in str(caught.value)


def test_features_of_every_base_are_vectors() -> None:
    for name in BASES:
        method = metagan(base(name))
        batch = episode()
        logits, features = method.discriminate(method.adapt(batch.support), batch.query)
        assert logits.shape == (2, 6, TASK.way)
        assert features.dim() == 3
        assert cross_entropy(logits, batch.target).shape == (2,)
