"""Relation networks: numbers worked out by hand, gradients, sizes of the paper."""

from __future__ import annotations

import pytest
import torch
from fsb_backbones.conv import conv4_relation
from fsb_relationnet.relationnet import RelationModule, RelationNet
from torch import nn

from fewshot_bench.config.resolve import configure
from fewshot_bench.episode import Episode, Support, Task
from fewshot_bench.errors import ConfigError
from fewshot_bench.nn import TaskBatchNorm, per_task
from fewshot_bench.testing import TINY, TinyBackbone, gradient_error, tiny_episode

LOSSES = ("squared_error", "cross_entropy")


def smooth(method: RelationNet) -> RelationNet:
    """Without kinks, so that finite differences are derivatives."""
    for sequence in [m for m in method.modules() if isinstance(m, nn.Sequential)]:
        for i, layer in enumerate(sequence):
            if isinstance(layer, nn.ReLU):
                sequence[i] = nn.Softplus()
            elif isinstance(layer, nn.MaxPool2d):
                sequence[i] = nn.AvgPool2d(2)
    return method


def tiny(statistics: str = "batch", **options: object) -> RelationNet:
    torch.manual_seed(0)
    backbone = TinyBackbone(statistics=statistics)  # type: ignore[arg-type]
    return smooth(RelationNet(TINY, backbone, **options)).double()  # type: ignore[arg-type]


class Score(nn.Module):
    """Relations that are products of sums of pixels."""

    def forward(self, classes: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        return queries.flatten(2).sum(2).unsqueeze(2) * classes.flatten(2).sum(2).unsqueeze(1)


class Identity(nn.Module):
    out_shape = (1, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def by_hand() -> tuple[RelationNet, Episode]:
    """Class sums 1 + 1 = 2 and 0 - 1 = -1; queries 1 and 2 of the classes 0 and 1."""
    method = RelationNet(Task(2, 2, 1, image_shape=(1, 1, 1)), Identity())
    method.relate = Score()  # type: ignore[assignment]
    support = torch.tensor([1.0, 1.0, 0.0, -1.0]).double().view(1, 2, 2, 1, 1, 1)
    key = torch.zeros(1, dtype=torch.int64)
    query = torch.tensor([1.0, 2.0]).double().view(1, 2, 1, 1, 1)
    return method, Episode(Support(support, None, key), query, torch.tensor([[0, 1]]), key, key)


def test_losses_by_hand() -> None:
    method, episode = by_hand()
    relations = method.predict(method.adapt(episode.support), episode.query)
    assert relations.tolist() == [[[2.0, -1.0], [4.0, -2.0]]]
    p = 1 / (1 + torch.tensor([-2.0, 1.0, -4.0, 2.0]).double().exp())
    squared = ((p[0] - 1) ** 2 + p[1] ** 2 + p[2] ** 2 + (p[3] - 1) ** 2) / 4
    got = method.losses(episode)
    assert got.players["meta"].item() == pytest.approx(squared.item(), rel=1e-12)
    assert got.log["accuracy"].item() == 0.5
    method.loss = "cross_entropy"
    # log(1 + e^-3) and log(1 + e^6)
    expected = torch.tensor([-3.0, 6.0]).double().exp().log1p().mean().item()
    assert method.losses(episode).players["meta"].item() == pytest.approx(expected, rel=1e-12)


def test_the_first_convolution_is_that_of_the_concatenation() -> None:
    torch.manual_seed(0)
    for maps in ((3, 5, 5), (3, 11, 12)):
        module = RelationModule(maps, 4, "batch").double()
        classes = torch.randn(2, 3, *maps).double()
        queries = torch.randn(2, 4, *maps).double()
        pairs = torch.cat(
            [
                classes.unsqueeze(1).expand(-1, 4, -1, -1, -1, -1),
                queries.unsqueeze(2).expand(-1, -1, 3, -1, -1, -1),
            ],
            dim=3,
        )
        whole = nn.Sequential(module.first, module.rest)
        expected = per_task(whole, pairs.flatten(1, 2)).view(2, 4, 3)
        torch.testing.assert_close(module(classes, queries), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_gradient_matches_finite_differences(loss: str, statistics: str) -> None:
    method = tiny(statistics, loss=loss, clip=None)
    assert gradient_error(method, tiny_episode(), samples=4)["meta"] < 1e-6


@pytest.mark.parametrize(("shape", "features"), [((1, 28, 28), 64), ((3, 84, 84), 576)])
def test_sizes_are_those_of_the_paper(shape: tuple[int, int, int], features: int) -> None:
    method = RelationNet(Task(5, 1, image_shape=shape), conv4_relation(shape))
    linear = [m for m in method.relate.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(features, 8), (8, 1)]
    state = torch.zeros(1, 5, *method.backbone.out_shape)  # type: ignore[union-attr,misc]
    assert method.predict(state, torch.zeros(1, 3, *shape)).shape == (1, 3, 5)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 9, 10])
def test_any_map_can_be_related(side: int) -> None:
    module = RelationModule((2, side, side), 4, "batch")
    maps = torch.randn(1, 3, 2, side, side)
    assert module(maps, maps).shape == (1, 3, 3)


def test_tasks_do_not_influence_each_other() -> None:
    method, both = tiny(), tiny_episode(tasks=2)
    together = method.losses(both).players["meta"]
    alone = [method.losses(both.tasks(t, t + 1)).players["meta"] for t in range(2)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("statistics", "transductive"), [("batch", True), ("running", False)])
def test_the_relation_module_normalizes_as_the_backbone_does(
    statistics: str, transductive: bool
) -> None:
    method, episode = tiny(statistics).eval(), tiny_episode()
    norms = [m for m in method.relate.modules() if isinstance(m, TaskBatchNorm)]
    assert {m.statistics for m in norms} == {statistics}
    assert len(norms) == 2
    assert method.transductive is transductive
    state = method.adapt(episode.support)
    one, all_ = method.predict(state, episode.query[:, :1]), method.predict(state, episode.query)
    assert torch.allclose(one, all_[:, :1], atol=1e-12) is not transductive


def test_relabeled_classes_relabel_the_predictions() -> None:
    assert RelationNet.class_equivariant
    method, episode = tiny("running").eval(), tiny_episode()
    order = torch.tensor([2, 0, 1])
    turned = Support(episode.support.images[:, order], None, episode.support.key)
    logits = method.predict(method.adapt(episode.support), episode.query)
    again = method.predict(method.adapt(turned), episode.query)
    torch.testing.assert_close(again, logits[..., order], rtol=1e-12, atol=1e-12)


def test_relations_are_of_full_precision_under_autocast() -> None:
    method = RelationNet(TINY, TinyBackbone())
    episode = tiny_episode(dtype=torch.float32)
    full = method.losses(episode).players["meta"]
    with torch.autocast("cpu", torch.bfloat16):
        assert method.predict(method.adapt(episode.support), episode.query).dtype == torch.float32
        half = method.losses(episode).players["meta"]
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.05)


def test_rate_and_clip() -> None:
    player = tiny().players()["meta"]
    assert player.clip == 0.5
    assert player.schedule is not None
    assert [player.schedule(step, 10**6) for step in (0, 99_999, 100_000)] == [1, 1, 0.5]
    assert tiny(halve_every=0).players()["meta"].schedule is None


@pytest.mark.parametrize(
    ("options", "message"),
    [({"hidden": 0}, "--hidden: .* got 0"), ({"clip": 0.0}, "--clip: .* got 0")],
)
def test_impossible_options_are_one_clear_line(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**options)


@pytest.mark.parametrize(
    ("dataset", "way", "shot", "query"),
    [("omniglot", 5, 1, 19), ("omniglot", 5, 5, 15), ("omniglot", 20, 1, 10),
     ("omniglot", 20, 5, 5), ("folder:x", 5, 1, 15), ("folder:x", 5, 5, 10)],
)  # fmt: skip
def test_paper_preset_has_the_papers_queries(dataset: str, way: int, shot: int, query: int) -> None:
    config = configure("relationnet", preset="paper", dataset=dataset, way=way, shot=shot)
    assert (config.train_query, config.task_batch) == (query, 1)
    assert config.method_options["loss"] == "squared_error"
    assert config.backbone == "conv4-relation"
