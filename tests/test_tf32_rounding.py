"""``benchmarks/tf32.py`` rounds as the format says, and every product of a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.loading import loaded

FILE = Path(__file__).parents[1] / "benchmarks" / "tf32.py"


@pytest.fixture(scope="module")
def tf32() -> Any:
    return loaded(FILE, "tf32")


def test_ten_bits_of_mantissa_and_ties_to_even(tf32: Any) -> None:
    step = 2.0**-10
    values = [1.0, 1 + step, 1 + 0.5 * step, 1 + 1.5 * step, 1 + 0.51 * step, -3.0, 0.0, 2.0**-126]
    found = tf32.rounded(torch.tensor(values)).tolist()
    assert found == [1.0, 1 + step, 1.0, 1 + 2 * step, 1 + step, -3.0, 0.0, 2.0**-126]
    random = torch.randn(1000)
    assert ((tf32.rounded(random) - random).abs() <= 2.0**-11 * random.abs()).all()


def test_products_and_their_gradients_are_rounded(tf32: Any) -> None:
    torch.manual_seed(0)
    x, w, v = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3), torch.randn(4 * 36, 5)

    def run(x: torch.Tensor, w: torch.Tensor, v: torch.Tensor) -> list[torch.Tensor]:
        leaves = [t.clone().requires_grad_() for t in (x, w, v)]
        y = F.conv2d(leaves[0], leaves[1]).flatten(1) @ leaves[2]
        return [y, *torch.autograd.grad(y.square().sum(), leaves)]

    with tf32.TF32():
        found = run(x, w, v)
    exact = [value.float() for value in run(x.double(), w.double(), v.double())]
    for a, b in zip(found, exact, strict=True):
        error = (a - b).norm() / b.norm()
        assert 1e-5 < error < 2e-3
    for a, b in zip(run(x, w, v), exact, strict=True):
        assert (a - b).norm() / b.norm() < 1e-6
