"""A convolution whose weights and bias have accurate gradients on a CPU.

Both gradients are sums over all images and positions, which torch's CPU convolution takes one value
after another in float32. Of the bias: before a batch normalization, where the sum is 0 but for
rounding, that noise was the largest error of a whole training step (3e-5 of ProtoNet's gradient at
20-way 5-shot on Omniglot). torch's own ``sum`` adds in a tree: the noise falls by a hundred, and
the step becomes faster. Of the weights: summed for a few images at a time, ``SUMMED`` values of a
channel, the noise falls to a third. That matters in the first layer, whose inputs are all positive:
it was 9e-5 of ProtoNet's gradient at 84x84. With one input channel that takes half of the time,
with more about the same.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot_bench.nn.norm import context
from fewshot_bench.utils.devices import is_gpu

FEW = 2**14  # values to sum: up to so many, torch's gradients are accurate, and cost less
SUMMED = 2**13  # values that are summed at once for the weights; at least those of one image


class Conv2d(nn.Conv2d):
    """``torch.nn.Conv2d``; use it in a backbone in its place."""

    def forward(self, input: Tensor) -> Tensor:
        plain = (
            is_gpu(input)
            or self._values(input) < FEW
            or self.padding_mode != "zeros"
            or isinstance(self.padding, str)
            or context.vmapped
            or not torch.is_grad_enabled()
            or torch.is_autocast_enabled("cpu")
        )
        if plain:
            return super().forward(input)
        y: Tensor = _Convolution.apply(
            input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )
        return y

    def _values(self, images: Tensor) -> int:
        """How many values of an output channel there are, about."""
        if images.dim() < 4:
            return 0
        n, _, height, width = images.shape
        return n * (height // self.stride[0]) * (width // self.stride[1])


class _Convolution(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, *sizes: Any) -> Tensor:
        return F.conv2d(x, weight, bias, *sizes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, *ctx.sizes = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (dy,), (x, weight) = gradients, ctx.saved_tensors
        *sizes, groups = ctx.sizes
        by_x, by_weight, by_bias = ctx.needs_input_grad[:3]

        def by(dy: Tensor, x: Tensor, by_x: bool, by_weight: bool) -> Any:
            return torch.ops.aten.convolution_backward(
                dy, x, weight, None, *sizes, False, [0, 0], groups, [by_x, by_weight, False]
            )

        images = max(1, SUMMED // (dy.shape[2] * dy.shape[3]))
        several = by_weight and len(x) > images
        dx, dweight, _ = by(dy, x, by_x, by_weight and not several)
        if several:
            parts = zip(dy.split(images), x.split(images), strict=True)
            dweight = torch.stack([by(*part, False, True)[1] for part in parts]).sum(0)
        dbias = dy.sum((0, 2, 3)) if by_bias else None
        return dx, dweight, dbias, None, None, None, None
