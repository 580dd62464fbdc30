"""Each player's gradient against central differences, in every form of the game."""

from __future__ import annotations

from itertools import product

import pytest

from fewshot_bench.testing import gradient_error
from tests.plugins.metagan_cases import (
    TASK,
    Descent,
    Metric,
    episode,
    metagan,
)

HEADS = ("logsumexp", "extra")
GENERATOR_LOSSES = ("non_saturating", "feature_matching")


@pytest.mark.parametrize(
    ("head", "generator_loss", "inner_gan", "first_order", "inner_through_fakes"),
    list(product(HEADS, GENERATOR_LOSSES, (True, False), (True, False), (True, False))),
)
def test_gradients_match_finite_differences(
    head: str, generator_loss: str, inner_gan: bool, first_order: bool, inner_through_fakes: bool
) -> None:
    method = metagan(
        Descent(TASK, first_order),
        head=head,
        generator_loss=generator_loss,
        inner_gan=inner_gan,
        inner_through_fakes=inner_through_fakes,
    )
    exact = not first_order and (inner_through_fakes or not inner_gan)
    assert method.gradient == ("exact" if exact else "surrogate")
    errors = gradient_error(method, episode(), samples=3)
    assert set(errors) == {"discriminator", "generator"}
    assert max(errors.values()) < 1e-6


def test_a_base_without_inner_loop_works_and_has_the_right_gradients() -> None:
    for head in HEADS:
        method = metagan(Metric(TASK), head=head)
        assert max(gradient_error(method, episode(), samples=3).values()) < 1e-6
