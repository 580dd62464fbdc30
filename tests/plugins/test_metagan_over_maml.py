"""MetaGAN over the MAML that is installed: gradients, the control, the wider head."""

from __future__ import annotations

import pytest
import torch
from fsb_maml.maml import MAML
from torch import nn

from fewshot_bench.engine.training import check_players
from fewshot_bench.testing import gradient_error
from tests.plugins.metagan_cases import TASK, episode, gradient_of, metagan

GAN_WEIGHTS = (
    "outer_real_weight",
    "outer_fake_weight",
    "inner_real_weight",
    "inner_fake_weight",
    "generator_weight",
)


class Smooth(nn.Module):
    """A backbone without a kink: [N, 1, 4, 4] -> [N, 2, 2, 2]."""

    out_shape = (2, 2, 2)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.conv(x))


def maml(first_order: bool = False) -> MAML:
    torch.manual_seed(1)
    return MAML(
        TASK, Smooth(), inner_lr=0.3, inner_steps=2, first_order=first_order, pooling="flatten"
    )


@pytest.mark.parametrize("head", ["logsumexp", "extra"])
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("inner_through_fakes", [False, True])
def test_gradients_match_finite_differences(
    head: str, first_order: bool, inner_through_fakes: bool
) -> None:
    method = metagan(maml(first_order), head=head, inner_through_fakes=inner_through_fakes)
    errors = gradient_error(method, episode(), samples=3)
    assert set(errors) == set(check_players(method))
    assert max(errors.values()) < 1e-6


@pytest.mark.parametrize("first_order", [False, True])
def test_with_all_gan_weights_0_the_discriminator_is_maml_exactly(first_order: bool) -> None:
    base, batch = maml(first_order).double(), episode()
    alone = base.losses(batch).players["meta"]
    own = torch.autograd.grad(alone.sum(), list(base.parameters()))
    method = metagan(base, **dict.fromkeys(GAN_WEIGHTS, 0.0))
    assert torch.equal(method.losses(batch).players["discriminator"], alone)
    assert all(map(torch.equal, gradient_of(method, batch)["discriminator"], own))
    method.eval()
    state, expected = method.adapt(batch.support), base.adapt(batch.support)
    assert torch.equal(method.predict(state, batch.query), base.predict(expected, batch.query))


def test_the_extra_head_has_an_output_for_fakes() -> None:
    method = metagan(maml(), head="extra")
    assert method.base.net.head.out_features == TASK.way + 1
    assert method.base.net.head.weight in set(method.players()["discriminator"].parameters.values())
    batch = episode()
    assert method.predict(method.adapt(batch.support), batch.query).shape == (2, 6, TASK.way)
