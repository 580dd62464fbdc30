"""Batch normalization: accurate in float32 in every layout; its derivatives against differences and
torch's own.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import grad, gradcheck, gradgradcheck

from fewshot_bench.nn import Conv2d, TaskBatchNorm, double_backward, layers
from fewshot_bench.nn.norm import batch_norm, observed

LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
SHAPES = [
    (5, 3),
    (66, 2),
    (4, 2, 3, 3),
    (9, 2, 5, 5),
]  # the 2nd and last have groups, channels-last


def arguments(shape: tuple[int, ...], layout: str, scale: float = 1.0) -> list[Tensor]:
    torch.manual_seed(0)
    channels = shape[1]
    x = scale * torch.randn(shape, dtype=torch.float64) + 2
    if len(shape) == 4:
        x = x.contiguous(memory_format=LAYOUTS[layout])
    tensors = (x, torch.randn(channels).double(), torch.randn(channels).double())
    return [tensor.requires_grad_() for tensor in tensors]


def ours(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    return batch_norm(x, gamma, beta, 1e-5)[0]


def torchs(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, gamma, beta, True, 1.0, 1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_both_derivatives_are_those_of_finite_differences(
    shape: tuple[int, ...], layout: str
) -> None:
    def laid_out(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        if x.dim() == 4:  # the checks pass contiguous copies
            x = x.contiguous(memory_format=LAYOUTS[layout])
        return ours(x, gamma, beta)

    assert gradcheck(laid_out, arguments(shape, layout))
    assert gradgradcheck(laid_out, arguments(shape, layout))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("zero", [False, True])
def test_the_second_derivative_is_torchs(zero: bool, layout: str) -> None:
    def second(normalize: object) -> tuple[Tensor, ...]:
        inputs = arguments((6, 4, 5, 5), layout, scale=3.0)
        if zero:  # a channel that the scale switches off
            inputs[1].data[1] = 0
        y = normalize(*inputs)  # type: ignore[operator]
        weights = torch.arange(y.numel()).view(y.shape)
        first = grad((y.sin() * weights).sum(), inputs, create_graph=True)
        return grad(sum((g.cos() * g).sum() for g in first), inputs)  # type: ignore[arg-type]

    for a, b in zip(second(ours), second(torchs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10 * float(b.detach().abs().max()))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_gradient_by_the_scale_alone_is_differentiated_too(layout: str) -> None:
    inputs = arguments((9, 2, 5, 5), layout)
    (by_gamma,) = grad(ours(*inputs).square().sum(), inputs[1], create_graph=True)
    (theirs,) = grad(torchs(*inputs).square().sum(), inputs[1], create_graph=True)
    torch.testing.assert_close(
        grad(by_gamma.square().sum(), inputs[0]), grad(theirs.square().sum(), inputs[0])
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_third_derivative_is_right_too(layout: str) -> None:
    """torch's own batch_norm has none."""

    def plainly(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
        xhat = (x - mean) / (variance + 1e-5).sqrt()
        return xhat * gamma.view(-1, 1, 1) + beta.view(-1, 1, 1)

    def third(normalize: object) -> tuple[Tensor, ...]:
        inputs = arguments((9, 2, 5, 5), layout)
        total = normalize(*inputs).pow(3).sum()  # type: ignore[operator]
        for _ in range(2):
            gradients = grad(total, inputs, create_graph=True)
            total = sum(g.sin().sum() for g in gradients)  # type: ignore[assignment]
        return grad(total, inputs)

    for a, b in zip(third(ours), third(plainly), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-8 * float(b.detach().abs().max()))


def test_a_single_value_per_channel_is_refused() -> None:
    with pytest.raises(ValueError, match=r"more than (1|one) value per channel"):
        TaskBatchNorm(3)(torch.randn(1, 3, 1, 1))


# Relative errors that contiguous sums in float64 keep to; in channels-last layout torch's own
# batch_norm has 2e-5 in the first case and 1e-3 in the second.
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("mean", "bound"), [(0.5, 2e-6), (5.0, 2e-5)])
@pytest.mark.parametrize(
    "shape", [(100, 8, 14, 14), (25, 8, 84, 84), (40_000, 8), (40_000, 8, 1, 1)]
)
def test_float32_is_accurate(
    shape: tuple[int, ...], mean: float, bound: float, layout: str
) -> None:
    torch.manual_seed(0)
    exact = torch.randn(shape, dtype=torch.float64) + mean
    incoming = torch.randn(shape, dtype=torch.float64) + 0.1
    exact = exact.float().double()  # the same numbers in both precisions
    found: dict[torch.dtype, list[Tensor]] = {}
    for dtype in (torch.float64, torch.float32):
        layer = TaskBatchNorm(8, "running").to(dtype)
        x = exact.to(dtype)
        if len(shape) == 4:
            x = x.contiguous(memory_format=LAYOUTS[layout])
        x.requires_grad_()
        with observed(layer, 1) as statistics:
            y = layer(x)
        assert y.stride() == x.stride()
        gradients = grad(y, (x, layer.weight, layer.bias), incoming.to(dtype))
        found[dtype] = [y.detach(), *gradients, *statistics.values()]
    for a, b in zip(found[torch.float32], found[torch.float64], strict=True):
        assert float((a - b).norm() / b.norm()) < bound


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_through_running_statistics_are_accurate(layout: str) -> None:
    torch.manual_seed(0)
    exact = torch.randn(100, 8, 28, 28).double() + 0.5
    found = []
    for dtype in (torch.float64, torch.float32):
        layer = TaskBatchNorm(8, "running").to(dtype).eval()
        x = exact.to(dtype).contiguous(memory_format=LAYOUTS[layout])
        y = layer(x)
        found.append([y.detach(), *grad(y.sigmoid().sum(), (layer.weight, layer.bias))])
    for a, b in zip(*found, strict=True):
        assert float((b - a).norm() / a.norm()) < 1e-6


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_gradient_by_a_bias_is_accurate(layout: str) -> None:
    """Before a batch normalization it is 0; torch's own convolution leaves 30 times as much."""
    torch.manual_seed(0)
    x = torch.rand(100, 1, 28, 28).round().contiguous(memory_format=LAYOUTS[layout])
    convolution, norm = Conv2d(1, 8, 3, padding=1), TaskBatchNorm(8)
    y = norm(convolution(x))
    by_weight, by_bias = grad(y.relu().square().sum(), (convolution.weight, convolution.bias))
    assert float(by_bias.norm() / by_weight.norm()) < 1e-4


def test_the_gradient_by_the_weights_is_accurate() -> None:
    """In a first layer at 84x84: torch's own convolution is off by 2.4e-5."""
    torch.manual_seed(0)
    x, dy = 0.6 + 0.3 * torch.rand(25, 3, 84, 84), torch.randn(25, 64, 84, 84)
    dy -= dy.mean((0, 2, 3), keepdim=True)
    ours, theirs = (kind(3, 64, 3, padding=1) for kind in (Conv2d, torch.nn.Conv2d))
    theirs.load_state_dict(ours.state_dict())

    def by_weight(layer: torch.nn.Module, dtype: torch.dtype) -> Tensor:
        return grad(layer.to(dtype)(x.to(dtype)), (layer.weight,), dy.to(dtype))[0].double()

    exact = by_weight(theirs, torch.float64)
    assert (by_weight(ours, torch.float32) - exact).norm() < 1.5e-5 * exact.norm()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("few", [0, 10**6], ids=["ours", "torch's"])
def test_a_convolution_is_torchs_and_so_are_its_derivatives(
    few: int, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "FEW", few)
    monkeypatch.setattr(layers, "SUMMED", 50)  # two images of 5 x 5
    torch.manual_seed(0)
    kinds = (Conv2d, torch.nn.Conv2d)
    ours_, theirs = (kind(3, 4, 3, stride=2, padding=1, bias=bias) for kind in kinds)
    theirs.load_state_dict(ours_.state_dict())
    x = torch.randn(5, 3, 9, 9, dtype=torch.float64)

    def derivatives(layer: torch.nn.Module) -> tuple[Tensor, ...]:
        inputs = [x.clone().requires_grad_(), *layer.double().parameters()]
        first = grad(layer(inputs[0]).pow(3).sum(), inputs, create_graph=True)
        second = grad(sum(g.square().sum() for g in first), inputs)  # type: ignore[arg-type]
        return (*first, *second)

    for a, b in zip(derivatives(ours_), derivatives(theirs), strict=True):
        torch.testing.assert_close(a, b)


def test_a_convolution_goes_through_vmap() -> None:
    """Gradients of each image by ``torch.func``, also of so large ones that it sums by itself."""
    layer = Conv2d(2, 4, 3, padding=1).double()
    weights = dict(layer.named_parameters())
    images = torch.randn(3, 1, 2, 128, 128, dtype=torch.float64)
    assert layer._values(images[0]) >= layers.FEW

    def loss(weights: dict[str, Tensor], image: Tensor) -> Tensor:
        return torch.func.functional_call(layer, weights, (image,)).pow(3).sum()

    every = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, images)
    for i, image in enumerate(images):
        for name, exact in zip(weights, grad(loss(weights, image), weights.values()), strict=True):
            torch.testing.assert_close(every[name][i], exact)


def test_saying_that_gradients_are_differentiated_changes_no_number() -> None:
    layer, x = TaskBatchNorm(3), torch.randn(4, 3, 2, 2, requires_grad=True)
    plain = layer(x)
    with double_backward():
        torch.testing.assert_close(layer(x), plain, rtol=0, atol=0)
