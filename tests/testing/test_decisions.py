"""What float64 takes over from float32: a side of ReLU or of max-pooling, where it is undecided."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import grad

from fewshot_bench.testing.gradients import RecordDecisions, ReplayDecisions

LEAST = 1e-9  # undecided beside values of 1; 0.01 is not
LEAKY = 0.2


def gradients(function: Callable[[Tensor], Tensor], first: Tensor, then: Tensor) -> Tensor:
    """The gradient at the second input, with the decisions of the first."""
    recorded = RecordDecisions()
    with recorded:
        x = first.clone().requires_grad_()
        grad(function(x).sum(), x)
    with ReplayDecisions(recorded.decisions):
        x = then.double().requires_grad_()
        return grad(function(x).sum(), x)[0]


def leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, LEAKY)


@pytest.mark.parametrize(
    ("function", "below"),
    [(torch.relu, 0.0), (lambda x: torch.relu_(x * 1.0), 0.0), (leaky, LEAKY)],
    ids=["relu", "in place", "leaky"],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_side_of_zero(function: Callable[[Tensor], Tensor], below: float, sign: int) -> None:
    """An input that is 0 but for rounding has the derivative of the first's side; another not."""
    first = torch.tensor([sign * LEAST, sign * 0.01, 1.0, -1.0])
    found = gradients(function, first, torch.tensor([-sign * LEAST, -sign * 0.01, 1.0, -1.0]))
    mine, others = (1.0, below) if sign > 0 else (below, 1.0)
    torch.testing.assert_close(found, torch.tensor([mine, others, 1.0, below]).double())


@pytest.mark.parametrize("gap", [LEAST, 0.01])
@pytest.mark.parametrize("pool", [lambda x: F.max_pool2d(x, 2), lambda x: x.flatten().max(0)[0]])
def test_the_largest_of_a_window(pool: Callable[[Tensor], Tensor], gap: float) -> None:
    """Of two that are equal but for rounding the first's choice counts; else the larger one."""
    first = torch.tensor([[[[1.0 + 1e-3, 1.0], [-1.0, 0.0]]]])
    then = torch.tensor([[[[1.0, 1.0 + gap], [-1.0, 0.0]]]], dtype=torch.float64)
    found = gradients(pool, first, then)
    chosen = 0 if gap == LEAST else 1
    assert found.flatten().tolist() == [float(i == chosen) for i in range(4)]


def test_a_second_derivative_stands_on_the_same_side() -> None:
    """relu(x)^2 has the second derivative 2 on the positive side, 0 on the other."""

    def second(x: Tensor) -> Tensor:
        return grad(torch.relu(x * 1.0).square().sum(), x, create_graph=True)[0]

    first, then = torch.tensor([LEAST, 1.0]), torch.tensor([-LEAST, 1.0])
    assert gradients(second, first, then).tolist() == [2.0, 2.0]


@pytest.mark.parametrize("other", [lambda x: x.max(1), torch.relu], ids=["operation", "size"])
def test_another_course_is_left_alone(other: Callable[[Tensor], object]) -> None:
    """Where an operation comes that was not written down, nothing is taken over."""
    recorded = RecordDecisions()
    with recorded:
        torch.relu(torch.tensor([LEAST, 1.0]))
    with ReplayDecisions(recorded.decisions):
        other(torch.tensor([[0.0, 1.0]]))
        x = torch.tensor([-LEAST, 1.0], requires_grad=True)
        assert grad(torch.relu(x).sum(), x)[0].tolist() == [0.0, 1.0]
