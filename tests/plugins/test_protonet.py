"""ProtoNet: numbers worked out by hand, gradients, what it declares."""

from __future__ import annotations

import pytest
import torch
from fsb_protonet.protonet import ProtoNet
from torch import nn

from fewshot_bench.config.options import load
from fewshot_bench.episode import Episode, Support, Task
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.method import preset_settings
from fewshot_bench.testing import TINY, TinyBackbone, gradient_error, tiny_episode


class Pixels(nn.Module):
    """An embedding that is the image times a number: (1, 1, 2) -> (1, 1, 2)."""

    out_shape = (1, 1, 2)

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * x


def tiny(statistics: str = "batch") -> ProtoNet:
    torch.manual_seed(0)
    return ProtoNet(TINY, TinyBackbone(statistics=statistics))


def test_prototypes_and_loss_by_hand() -> None:
    """Two classes, two shots, two queries, worked out in the comments."""
    support = torch.tensor([[[0.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 2.0]]])
    query = torch.tensor([[0.5, 0.0], [0.0, 0.5]])
    episode = Episode(
        Support(support.double().view(1, 2, 2, 1, 1, 2), None, torch.zeros(1, dtype=torch.int64)),
        query.double().view(1, 2, 1, 1, 2),
        torch.tensor([[0, 1]]),
        torch.tensor([[0, 1]]),
        torch.zeros(1, dtype=torch.int64),
    )
    method = ProtoNet(Task(2, 2, 1, image_shape=(1, 1, 2)), Pixels())
    prototypes = method.adapt(episode.support)
    # Means (0.5, 0) and (0, 1.5), embedded by a factor of 2.
    assert prototypes.tolist() == [[[1.0, 0.0], [0.0, 3.0]]]
    # Query (1, 0): 0 and 1 + 9. Query (0, 1): 1 + 1 and 4.
    assert method.predict(prototypes, episode.query).tolist() == [[[-0.0, -10.0], [-2.0, -4.0]]]
    # -log softmax: log(1 + e^-10) for the first, log(1 + e^2) for the second; their mean.
    expected = (torch.tensor(-10.0).double().exp().log1p() + torch.tensor(2.0).exp().log1p()) / 2
    losses = method.losses(episode)
    torch.testing.assert_close(losses.players["meta"], expected.view(1).double())
    assert losses.log["accuracy"].tolist() == [0.5]


@pytest.mark.parametrize("statistics", ["batch", "running"])
@pytest.mark.parametrize("tasks", [1, 2])
def test_gradient_matches_finite_differences(statistics: str, tasks: int) -> None:
    assert gradient_error(tiny(statistics), tiny_episode(tasks=tasks))["meta"] < 1e-6


def test_tasks_do_not_influence_each_other() -> None:
    method, both = tiny().double(), tiny_episode(tasks=2)
    together = method.losses(both).players["meta"]
    alone = [method.losses(both.tasks(t, t + 1)).players["meta"] for t in range(2)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-12, atol=1e-12)


def test_relabeled_classes_relabel_the_predictions() -> None:
    assert ProtoNet.class_equivariant
    method, episode = tiny().double().eval(), tiny_episode()
    order = torch.tensor([2, 0, 1])
    turned = Support(episode.support.images[:, order], None, episode.support.key)
    logits = method.predict(method.adapt(episode.support), episode.query)
    again = method.predict(method.adapt(turned), episode.query)
    torch.testing.assert_close(again, logits[..., order], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("statistics", "transductive"), [("batch", True), ("running", False)])
def test_transductive_is_what_the_backbone_makes_it(statistics: str, transductive: bool) -> None:
    method, episode = tiny(statistics).double().eval(), tiny_episode()
    assert method.transductive is transductive
    state = method.adapt(episode.support)
    one = method.predict(state, episode.query[:, :1])
    influenced = not torch.allclose(one, method.predict(state, episode.query)[:, :1], atol=1e-12)
    assert influenced is transductive


def test_it_can_be_tested_on_another_task_than_it_was_trained_on() -> None:
    method, episode = tiny().eval(), tiny_episode(way=5, shot=1, query=3, dtype=torch.float32)
    assert method.predict(method.adapt(episode.support), episode.query).shape == (2, 15, 5)


def test_distances_keep_full_precision_under_autocast() -> None:
    assert ProtoNet.autocast
    method, episode = tiny().eval(), tiny_episode(dtype=torch.float32)
    full = method.losses(episode).players["meta"]
    with torch.autocast("cpu", torch.bfloat16):
        state = method.adapt(episode.support)
        assert state.dtype == method.predict(state, episode.query).dtype == torch.float32
        half = method.losses(episode).players["meta"]
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.05)


def test_the_rate_halves_as_in_the_paper() -> None:
    schedule = tiny().players()["meta"].schedule
    assert schedule is not None
    factors = [schedule(step, 20_000) for step in (0, 1999, 2000, 4000)]
    assert factors == [1, 1, 0.5, 0.25]
    assert ProtoNet(TINY, TinyBackbone(), halve_every=0).players()["meta"].schedule is None


@pytest.mark.parametrize(
    ("dataset", "shot", "way", "query"),
    [("omniglot", 1, 60, 5), ("omniglot", 5, 60, 5), ("folder", 1, 30, 15), ("folder", 5, 20, 15)],
)
def test_paper_preset_trains_as_the_paper_does(
    dataset: str, shot: int, way: int, query: int
) -> None:
    data = load(Registry.discover(), "datasets", dataset)
    preset = preset_settings(ProtoNet, "paper", data, Task(5, shot))
    assert preset is not None
    assert (preset["train_way"], preset["train_query"]) == (way, query)
    assert preset["halve_every"] == 2000
    assert preset["backbone_statistics"] == "running"
    assert preset_settings(ProtoNet, "tutorial", data, Task(5, shot)) is None
