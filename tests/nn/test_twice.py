"""The written-out second derivative of batch normalisation, against differences and torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import grad, gradcheck, gradgradcheck

from fewshot_bench.nn import TaskBatchNorm, double_backward
from fewshot_bench.nn.twice import batch_norm_twice


def arguments(shape: tuple[int, ...], scale: float = 1.0) -> list[Tensor]:
    torch.manual_seed(0)
    channels = shape[1]
    x = scale * torch.randn(shape, dtype=torch.float64) + 2
    tensors = (x, torch.randn(channels).double(), torch.randn(channels).double())
    return [tensor.requires_grad_() for tensor in tensors]


def ours(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    return batch_norm_twice(x, gamma, beta, 1e-5)


def torchs(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, gamma, beta, True, 1.0, 1e-5)


@pytest.mark.parametrize("shape", [(5, 3), (4, 2, 3, 3)])
def test_both_derivatives_are_those_of_finite_differences(shape: tuple[int, ...]) -> None:
    assert gradcheck(ours, arguments(shape))
    assert gradgradcheck(ours, arguments(shape))


@pytest.mark.parametrize("zero", [False, True])
def test_the_second_derivative_is_torchs(zero: bool) -> None:
    def second(normalise: object) -> tuple[Tensor, ...]:
        inputs = arguments((6, 4, 5, 5), scale=3.0)
        if zero:  # a channel that the scale switches off
            inputs[1].data[1] = 0
        y = normalise(*inputs)  # type: ignore[operator]
        first = grad(
            (y.sin() * torch.arange(y.numel()).view_as(y)).sum(), inputs, create_graph=True
        )
        return grad(sum((g.cos() * g).sum() for g in first), inputs)  # type: ignore[arg-type]

    for a, b in zip(second(ours), second(torchs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10 * float(b.detach().abs().max()))


def test_a_gradient_by_the_scale_alone_is_differentiated_too() -> None:
    inputs = arguments((4, 2, 3, 3))
    (by_gamma,) = grad(ours(*inputs).square().sum(), inputs[1], create_graph=True)
    (theirs,) = grad(torchs(*inputs).square().sum(), inputs[1], create_graph=True)
    torch.testing.assert_close(
        grad(by_gamma.square().sum(), inputs[0]), grad(theirs.square().sum(), inputs[0])
    )


def test_a_third_derivative_is_refused_and_not_wrong() -> None:
    inputs = arguments((4, 2))
    (first,) = grad(ours(*inputs).pow(3).sum(), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives only"):
        grad(first.pow(2).sum(), inputs[0], create_graph=True)


def test_a_layer_takes_it_where_a_method_says_so() -> None:
    layer, x = TaskBatchNorm(3), torch.randn(4, 3, 2, 2, requires_grad=True)
    plain = layer(x)
    with double_backward():
        twice = layer(x)
    torch.testing.assert_close(plain, twice, rtol=0, atol=0)
    assert "BatchNorm" in type(plain.grad_fn).__name__
    assert "_Forward" in type(twice.grad_fn).__name__
