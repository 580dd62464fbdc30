"""Soft k-means ProtoNet: refined prototypes by hand, gradients, what unlabeled images are for."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from fsb_protonet.protonet import ProtoNet
from fsb_protonet.soft_kmeans import FIRST_RADIUS, SoftKMeans, statistics

import fewshot_bench
from fewshot_bench.episode import Episode, Support, Task
from fewshot_bench.testing import TINY, TinyBackbone, gradient_error, tiny_episode
from tests.plugins.test_protonet import Pixels

KINDS = ("ignored", "cluster", "masked")
TASK = Task(2, 2, 1, unlabeled=1, image_shape=(1, 1, 2))


def tiny(kind: str, statistics: Any = "batch", **options: Any) -> SoftKMeans:
    torch.manual_seed(0)
    backbone = TinyBackbone(statistics=statistics)
    return SoftKMeans(TINY, backbone, distractors_are=kind, **options).double()  # type: ignore[arg-type]


def by_hand(kind: str, **options: Any) -> tuple[SoftKMeans, Support]:
    """Prototypes (0, 0) and (2, 0) of two images each; unlabeled (1, 1) and (0, 1)."""
    method = SoftKMeans(TASK, Pixels(), distractors_are=kind, **options).double()  # type: ignore[arg-type]
    with torch.no_grad():
        method.backbone.scale.fill_(1.0)  # type: ignore[union-attr,operator]
    images = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]], [[2.0, 1.0], [2.0, -1.0]]]).double()
    unlabeled = torch.tensor([[1.0, 1.0], [0.0, 1.0]]).double()
    return method, Support(
        images.view(1, 2, 2, 1, 1, 2), unlabeled.view(1, 2, 1, 1, 2), torch.tensor([0])
    )


def expected(z: list[list[float]]) -> list[list[float]]:
    """Of each class: (2 p + z_1 (1, 1) + z_2 (0, 1)) / (2 + z_1 + z_2); p is (0, 0), (2, 0)."""
    rows = []
    for c, p in enumerate((0.0, 2.0)):
        total = 2 + z[0][c] + z[1][c]
        rows.append([(2 * p + z[0][c]) / total, (z[0][c] + z[1][c]) / total])
    return rows


def assert_prototypes(got: torch.Tensor, z: list[list[float]]) -> None:
    torch.testing.assert_close(got[0], torch.tensor(expected(z)).double(), rtol=1e-6, atol=1e-9)


def test_one_step_of_soft_k_means_by_hand() -> None:
    # Squared distances: 2 and 2 of the first image, 1 and 5 of the second.
    method, support = by_hand("ignored")
    near = 1 / (1 + math.exp(-4))
    assert_prototypes(method.adapt(support), [[0.5, 0.5], [near, 1 - near]])


def test_with_a_cluster_of_distractors_by_hand() -> None:
    # The origin is 2 and 1 away, over r^2 = 4, and log r = log 2 is its normalizer.
    method, support = by_hand("cluster")
    assert math.exp(method.log_radius.item()) == pytest.approx(FIRST_RADIUS)
    with torch.no_grad():
        method.log_radius.fill_(math.log(2.0))
    z = []
    for to_0, to_2, to_origin in ((2, 2, 2), (1, 5, 1)):
        mass = [math.exp(-to_0), math.exp(-to_2), math.exp(-to_origin / 4) / 2]
        z.append([mass[0] / sum(mass), mass[1] / sum(mass)])
    assert_prototypes(method.adapt(support), z)


@pytest.mark.parametrize(("follow", "times"), [("paper", 1), ("code", 2)])
def test_masks_by_hand(follow: str, times: int) -> None:
    """The authors' code applies its mask twice."""
    # Distances over their means: class 0 has (2, 1) / 1.5, class 1 has (2, 5) / 3.5. A network of
    # zeros has beta = gamma = 1.
    method, support = by_hand("masked", follow=follow)
    with torch.no_grad():
        for parameter in method.mask.parameters():
            parameter.zero_()
    near = 1 / (1 + math.exp(-4))
    z = [[0.5, 0.5], [near, 1 - near]]
    d = [[2 / 1.5, 2 / 3.5], [1 / 1.5, 5 / 3.5]]
    masked = [
        [a / (1 + math.exp(b - 1)) ** times for a, b in zip(row, own, strict=True)]
        for row, own in zip(z, d, strict=True)
    ]
    assert_prototypes(method.adapt(support), masked)


# What the authors' code does in place of the equations


def test_the_codes_plain_variant_has_assignments_without_a_gradient() -> None:
    """The prototypes are the same, and the gradient is that of fixed assignments: of the weight w
    of the first image, z = near for the second one's class 0, by hand."""
    method, support = by_hand("ignored", follow="code")
    plain, _ = by_hand("ignored")
    assert torch.equal(method.adapt(support), plain.adapt(support))
    assert (method.gradient, plain.gradient) == ("surrogate", "exact")
    scale = method.backbone.scale  # type: ignore[union-attr]
    # p_r of class 0 has the second coordinate (z_1 + z_2) / (2 + z_1 + z_2) times the scale
    near = 1 / (1 + math.exp(-4))
    share = (0.5 + near) / (2.5 + near)
    (slope,) = torch.autograd.grad(method.adapt(support)[0, 0, 1], scale)  # type: ignore[arg-type]
    assert slope.sum().item() == pytest.approx(share, rel=1e-6)
    (full,) = torch.autograd.grad(
        plain.adapt(support)[0, 0, 1],
        plain.backbone.scale,  # type: ignore[union-attr,arg-type]
    )
    assert full.sum().item() != pytest.approx(share, rel=1e-2)


def test_the_codes_cluster_variant_halves_distances_by_hand() -> None:
    # As above, with halves: the origin is 2 and 1 away, over 2 r^2 = 8.
    method, support = by_hand("cluster", follow="code")
    with torch.no_grad():
        method.log_radius.fill_(math.log(2.0))
    z = halved()
    assert_prototypes(method.adapt(support)[:, :-1], z)
    # The distractors' center moves to the mean of (1, 1) and (0, 1) by what is left of each.
    left = [1 - sum(row) for row in z]
    assert method.adapt(support)[0, -1].tolist() == pytest.approx([left[0] / sum(left), 1.0])


def halved() -> list[list[float]]:
    """The code's z of the classes, of radius 1 beside 2."""
    z = []
    for to_0, to_2, to_origin in ((2, 2, 2), (1, 5, 1)):
        mass = [math.exp(-to_0 / 2), math.exp(-to_2 / 2), math.exp(-to_origin / 8) / 2]
        z.append([mass[0] / sum(mass), mass[1] / sum(mass)])
    return z


def test_the_codes_queries_see_the_distractors_where_they_moved_by_hand() -> None:
    """The loss of the query (1, 2) of class 1, by the centers after the step."""
    method, support = by_hand("cluster", follow="code")
    with torch.no_grad():
        method.log_radius.fill_(math.log(2.0))
    z = halved()
    left = [1 - sum(row) for row in z]
    centers = [*expected(z), [left[0] / sum(left), 1.0]]
    d = [(1 - x) ** 2 + (2 - y) ** 2 for x, y in centers]
    masses = [math.exp(-d[0] / 2), math.exp(-d[1] / 2), math.exp(-d[2] / 8) / 2]
    query = torch.tensor([1.0, 2.0]).double().view(1, 1, 1, 1, 2)
    logits = method.predict(method.adapt(support), query)[0, 0]
    assert logits.tolist() == pytest.approx([-d[0] / 2, -d[1] / 2], rel=1e-6)
    episode = Episode(support, query, torch.tensor([[1]]), torch.tensor([[0, 1]]), support.key)
    loss = method.losses(episode).players["meta"]
    assert loss.tolist() == pytest.approx([-math.log(masses[1] / sum(masses))], rel=1e-6)


def test_distractors_of_no_weight_stay_at_the_origin() -> None:
    """As the code has it; 0 / 0 would be no number."""
    method, support = by_hand("cluster", follow="code")
    with torch.no_grad():
        method.log_radius.fill_(1e3)  # so wide that nothing belongs to it
    state = method.adapt(support)
    assert state[0, -1].tolist() == [0, 0]
    state.sum().backward()
    assert method.backbone.scale.grad.isfinite().all()  # type: ignore[union-attr]


@pytest.mark.parametrize(("unlabeled", "radius"), [(True, 2.0), (False, 1e5)])
def test_the_codes_queries_have_a_distractors_logit_by_hand(unlabeled: bool, radius: float) -> None:
    """At prototypes (0, 0) and (2, 0) and distractors at (0, 0), query (1, 2) is 5 from each."""
    method, support = by_hand("cluster", follow="code")
    if not unlabeled:
        support = replace(support, unlabeled=None)
    prototypes = torch.tensor([[[0.0, 0.0], [2.0, 0.0], [0.0, 0.0]]]).double()
    method.adapt = lambda support, inner_loss=None: prototypes  # type: ignore[method-assign]
    with torch.no_grad():
        method.log_radius.fill_(math.log(2.0))
    query = torch.tensor([1.0, 2.0]).double().view(1, 1, 1, 1, 2)
    assert method.predict(prototypes, query)[0, 0].tolist() == pytest.approx([-2.5, -2.5])
    episode = Episode(support, query, torch.tensor([[1]]), torch.tensor([[0, 1]]), support.key)
    masses = [math.exp(-2.5)] * 2 + [math.exp(-5 / 2 / radius**2) / radius]
    loss = method.losses(episode).players["meta"]
    assert loss.tolist() == pytest.approx([-math.log(masses[0] / sum(masses))], rel=1e-6)


@pytest.mark.parametrize("unlabeled", [0, 2])
@pytest.mark.parametrize("statistics", ["batch", "running"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_codes_gradient_matches_finite_differences(
    kind: str, statistics: str, unlabeled: int
) -> None:
    method = tiny(kind, statistics, follow="code")
    assert method.gradient == ("exact" if kind == "cluster" else "surrogate")
    batch = tiny_episode(unlabeled=unlabeled, distractors=1 if unlabeled else 0)
    assert gradient_error(method, batch, samples=6)["meta"] < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_the_code_differs_from_the_paper(kind: str) -> None:
    batch = tiny_episode(unlabeled=2)
    paper, code = tiny(kind), tiny(kind, follow="code")
    losses = [m.losses(batch).players["meta"] for m in (paper, code)]
    gradients = [
        torch.cat([
            g.flatten()
            for g in torch.autograd.grad(loss.sum(), list(m.parameters()), allow_unused=True)
            if g is not None
        ])
        for m, loss in zip((paper, code), losses, strict=True)
    ]  # fmt: skip
    assert torch.equal(*losses) == (kind == "ignored")
    assert not torch.allclose(*gradients)


def test_statistics_by_hand() -> None:
    d = torch.tensor([0.0, 0.0, 3.0]).double().view(1, 3, 1)
    # mean 1, deviations -1, -1, 2: variance 6/3, third moment 6/3, fourth 18/3
    got = statistics(d)[0, 0].tolist()
    assert got == pytest.approx([0, 3, 2, 2 / 2**1.5, 6 / 4 - 3])
    assert statistics(torch.ones(1, 4, 2)).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_gradient_matches_finite_differences(kind: str, statistics: str) -> None:
    method = tiny(kind, statistics)
    assert method.gradient == ("surrogate" if kind == "masked" else "exact")
    batch = tiny_episode(unlabeled=2, distractors=1)
    assert gradient_error(method, batch, samples=6)["meta"] < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_without_unlabeled_images_it_is_protonet(kind: str) -> None:
    method, batch = tiny(kind), tiny_episode()
    torch.manual_seed(0)
    plain = ProtoNet(TINY, TinyBackbone()).double()
    assert torch.equal(method.losses(batch).players["meta"], plain.losses(batch).players["meta"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_unlabeled_images_and_other_tasks_change_nothing(kind: str) -> None:
    method, batch = tiny(kind), tiny_episode(unlabeled=2)
    together = method.losses(batch).players["meta"]
    turned = replace(batch.support, unlabeled=batch.support.unlabeled.flip(1))
    again = method.losses(replace(batch, support=turned)).players["meta"]
    torch.testing.assert_close(again, together, rtol=1e-10, atol=1e-10)
    alone = [method.losses(batch.tasks(t, t + 1)).players["meta"] for t in range(2)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-10, atol=1e-10)


def test_a_run_with_few_labels_and_distractors(tmp_path: Any) -> None:
    record = fewshot_bench.run(
        "soft-kmeans", dataset="glyphs", train_classes=20, validation_classes=8, test_classes=8,
        way=3, shot=1, query=2, train_way=3, train_query=1, labeled_fraction=0.1,
        unlabeled=2, distractors=2, steps=2, episodes=40, validation_episodes=2,
        backbone_channels=4, runs_dir=str(tmp_path), cache_dir=str(tmp_path / "c"),
    )  # fmt: skip
    assert record["status"] == "completed"
    assert record["train_task"]["distractors"] == record["task"]["distractors"] == 2
