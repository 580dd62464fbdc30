"""MetaGAN's loss terms against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from fsb_metagan import losses as terms
from torch import Tensor


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def logits(*rows: tuple[float, ...]) -> Tensor:
    """One task; one row of logits per image."""
    return torch.tensor([rows], dtype=torch.float64)


# exp of the logits of each image: (1, 3) and (2, 2); both sum to 4.
TWO = logits((0.0, math.log(3)), (math.log(2), math.log(2)))


def test_real_logit_of_n_logits_is_their_logsumexp() -> None:
    assert terms.real_logit(TWO, way=2).tolist() == [pytest.approx([math.log(4)] * 2)]


def test_real_and_fake_terms_are_the_softmax_of_eq_10() -> None:
    # p(real) = 4 / (1 + 4) for both images, whatever their classes are.
    assert terms.real(TWO, way=2).item() == pytest.approx(-math.log(4 / 5))
    assert terms.fake(TWO, way=2).item() == pytest.approx(-math.log(1 / 5))
    assert terms.real(TWO, way=2).item() == pytest.approx(softplus(-math.log(4)))


def test_supervised_term_is_conditional_on_the_image_being_real() -> None:
    # -log 1/4 and -log 1/2; a fake logit, however large, has no part in eq. 2.
    expected = (math.log(4) + math.log(2)) / 2
    target = torch.tensor([[0, 1]])
    assert terms.supervised(TWO, target, way=2).item() == pytest.approx(expected)
    with_fake = torch.cat([TWO, torch.full((1, 2, 1), 9.0)], dim=-1)
    assert terms.supervised(with_fake, target, way=2).item() == pytest.approx(expected)


def test_extra_head_is_the_softmax_over_n_plus_1_classes() -> None:
    # exp: 1 + 3 real against 6 fake, and 2 + 2 against 1.
    extra = torch.cat([TWO, torch.tensor([[[math.log(6)], [0.0]]])], dim=-1)
    log_p = extra.log_softmax(-1)
    assert terms.fake(extra, way=2).item() == pytest.approx(-log_p[..., 2].mean().item())
    assert terms.fake(extra, way=2).item() == pytest.approx(-(math.log(0.6) + math.log(0.2)) / 2)
    assert terms.real(extra, way=2).item() == pytest.approx(-(math.log(0.4) + math.log(0.8)) / 2)


@pytest.mark.parametrize("term", [terms.real, terms.fake, terms.non_saturating, terms.real_logit])
def test_n_logits_equal_n_plus_1_with_the_fake_logit_at_0(term) -> None:
    torch.manual_seed(0)
    n = torch.randn(3, 7, 5, dtype=torch.float64) * 4
    extra = torch.cat([n, torch.zeros(3, 7, 1)], dim=-1)
    torch.testing.assert_close(term(n, 5), term(extra, 5), rtol=1e-14, atol=0)
    # Adding a number to all N + 1 logits changes nothing.
    torch.testing.assert_close(term(extra + 2.5, 5), term(extra, 5), rtol=1e-12, atol=1e-12)


def test_generator_wants_its_fakes_taken_for_real() -> None:
    assert terms.non_saturating(TWO, way=2).item() == pytest.approx(math.log(5 / 4))
    assert terms.non_saturating(TWO + 1, way=2) < terms.non_saturating(TWO, way=2)


def test_feature_matching_is_the_squared_distance_of_means() -> None:
    real = torch.tensor([[[1.0, 2.0], [3.0, 6.0]]])  # mean (2, 4)
    fake = torch.tensor([[[0.0, 0.0], [0.0, 3.0], [3.0, 0.0]]])  # mean (1, 1)
    assert terms.feature_matching(real, fake).tolist() == [10.0]


def test_terms_stay_finite_at_extreme_logits() -> None:
    for scale in (-1e4, 1e4):
        extreme = torch.full((1, 2, 3), scale)
        for term in (terms.real, terms.fake):
            assert torch.isfinite(term(extreme, 3)).all()
