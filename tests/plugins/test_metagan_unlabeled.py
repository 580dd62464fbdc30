"""MetaGAN with few labels: unlabeled images (Q^u) and tasks without any label."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch

import fewshot_bench
from fewshot_bench.method import Method
from fewshot_bench.sampling.few_labels import without_labels
from fewshot_bench.testing import gradient_error, tiny_episode
from tests.plugins.metagan_cases import TASK, Descent, episode, metagan
from tests.plugins.test_metagan import slope
from tests.plugins.test_metagan_bases import BASES, base


@pytest.mark.parametrize(
    ("name", "head", "kind"), list(product(BASES, ("logsumexp", "extra"), ("images", "tasks")))
)
def test_gradients_match_finite_differences(name: str, head: str, kind: str) -> None:
    method = metagan(base(name), head=head, generator_loss="feature_matching")
    batch = tiny_episode(3, 2, 2, 2, TASK.image_shape, unlabeled=1, distractors=1)
    if kind == "tasks":
        batch = without_labels(episode())
    assert max(gradient_error(method, batch, samples=3).values()) < 1e-6


def test_an_unlabeled_task_by_hand() -> None:
    # At theta = 0, as in test_inner_loss_eq_7_by_hand, but for the supervised term:
    # theta' = -0.3 * (-1/6 + 1).
    method, batch = slope()
    state = method.learn(without_labels(batch).support, lambda: method.encode(batch.support))
    assert state.item() == pytest.approx(-0.3 * (-1 / 6 + 1), rel=1e-12)
    got = method.unlabeled_losses(without_labels(batch))
    assert set(got.log) == {"real", "fake", "p_real_of_real", "p_real_of_fake"}
    loss = got.players["discriminator"]
    torch.testing.assert_close(loss, got.log["real"] + got.log["fake"], rtol=1e-12, atol=0)


def test_the_inner_supervised_term_has_a_weight() -> None:
    # -1/2 is its derivative, see test_inner_loss_eq_7_by_hand
    for weight in (0.0, 2.0):
        method, batch = slope(inner_supervised_weight=weight)
        expected = -0.3 * (weight * -1 / 2 - 1 / 6 + 1)
        assert method.adapt(batch.support).item() == pytest.approx(expected, rel=1e-12)


def test_the_labels_of_an_unlabeled_task_change_nothing() -> None:
    """Classes in another order are the same unlabeled task."""
    method, batch = metagan(encoder_dropout=0.0), without_labels(episode())
    turned = batch.support.images.flip(1)
    other = replace(batch, support=replace(batch.support, images=turned))
    again = method.unlabeled_losses(other).players
    for name, loss in method.unlabeled_losses(batch).players.items():
        torch.testing.assert_close(again[name], loss, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "options", [{"inner_gan": False}, {"outer_real_weight": 0.0, "outer_fake_weight": 0.0}]
)
def test_with_nothing_to_learn_from_an_unlabeled_task_nothing_moves(
    options: dict[str, Any],
) -> None:
    method, batch = metagan(Descent(TASK), **options), without_labels(episode())
    if "inner_gan" in options:
        state = method.adapt(batch.support)
        start = dict(method.base.named_parameters())
        assert all(torch.equal(w[0], start[name]) for name, w in state.items())
    else:
        loss = method.unlabeled_losses(batch).players["discriminator"].sum()
        gradients = torch.autograd.grad(loss, list(method.base.parameters()), allow_unused=True)
        assert all(g is None or not g.any() for g in gradients)


SETTINGS: dict[str, Any] = {
    "dataset": "glyphs", "train_classes": 20, "validation_classes": 6, "test_classes": 6,
    "way": 3, "shot": 1, "query": 2, "train_query": 1, "steps": 4, "episodes": 3,
    "validation_episodes": 2, "backbone_channels": 4,
}  # fmt: skip


@pytest.mark.parametrize("name", ["maml", "relationnet", "protonet"])
def test_a_run_at_both_levels(name: str, tmp_path: Any) -> None:
    record = fewshot_bench.run(
        "metagan", base=name, labeled_fraction=0.1, train_unlabeled=3, labeled_classes=0.5,
        runs_dir=str(tmp_path), cache_dir=str(tmp_path / "c"), **SETTINGS,
    )  # fmt: skip
    assert record["status"] == "completed"
    assert record["train_task"]["unlabeled"] == 3
    assert record["task"]["unlabeled"] == 0
    assert "0.1 of the images of each training class is labeled (seed 0)" in record["notes"]
    assert "0.5 of the training classes is labeled (seed 0)" in record["notes"]
    # every second step has no supervised term
    rows = (tmp_path / record["id"] / "steps.csv").read_text().splitlines()
    where = rows[0].split(",").index("supervised")
    assert [row.split(",")[where] == "" for row in rows[1:]] == [False, True, False, True]


def test_a_method_that_learns_from_labels_only_gets_labeled_tasks_only(tmp_path: Any) -> None:
    assert not Method.unlabeled_tasks
    record = fewshot_bench.run(
        "protonet", labeled_classes=0.5, train_way=3, runs_dir=str(tmp_path),
        cache_dir=str(tmp_path / "c"), **SETTINGS,
    )  # fmt: skip
    assert record["status"] == "completed"
    text = (tmp_path / record["id"] / "steps.csv").read_text()
    assert "accuracy" in text
    assert ",," not in text
