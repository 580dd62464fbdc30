"""Layers for backbones and methods: a convolution with accurate gradients, frozen networks, and
the defaults of Keras for methods whose source is written in TensorFlow."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot_bench.nn.norm import context
from fewshot_bench.utils.devices import is_gpu
from fewshot_bench.utils.torch_private import convolution_backward

FEW = 2**14  # values to sum: up to so many, torch's gradients are accurate, and cost less
SUMMED = 2**13  # values that are summed at once for the weights; at least those of one image
NORM_EPSILON = 1e-3  # of batch normalization in Keras
M = TypeVar("M", bound=nn.Module)


class Conv2d(nn.Conv2d):
    """``torch.nn.Conv2d`` whose weights and bias have accurate gradients on a CPU.

    Both are sums over all images and positions, which torch's CPU convolution takes one value after
    another in float32. Bias: before a batch normalization, where the sum is 0 but for rounding,
    that noise was 3e-5 of ProtoNet's gradient at 20-way 5-shot on Omniglot; torch's own ``sum``
    adds in a tree. Weights: summed for a few images at a time, the noise falls to a third; in the
    first layer, whose inputs are all positive, it was 9e-5 of ProtoNet's gradient at 84x84.
    """

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
        """About how many values an output channel has."""
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
            return convolution_backward(
                dy, x, weight, sizes, groups, by_x=by_x, by_weight=by_weight
            )

        images = max(1, SUMMED // (dy.shape[2] * dy.shape[3]))
        several = by_weight and len(x) > images
        dx, dweight = by(dy, x, by_x, by_weight and not several)
        if several:
            parts = zip(dy.split(images), x.split(images), strict=True)
            dweight = torch.stack([by(*part, False, True)[1] for part in parts]).sum(0)
        dbias = dy.sum((0, 2, 3)) if by_bias else None
        return dx, dweight, dbias, None, None, None, None


class Frozen(nn.Module):
    """A module whose parameters do not train and that stays in evaluation mode.

    So a pretrained network with ``nn.BatchNorm2d`` or ``nn.Dropout`` is usable as it is; its
    ``out_shape`` is passed on.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.requires_grad_(False)
        self.eval()
        if hasattr(module, "out_shape"):
            self.out_shape: Any = module.out_shape

    def train(self, mode: bool = True) -> Frozen:
        """Evaluation mode, whatever ``mode`` is."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.module(x))


class SamePad(nn.Module):
    """Keras' "same" padding for a 3x3 convolution of stride 2, which gives ceil(size / 2): all of
    an even size's padding comes last (28 -> 14 has one row at the bottom, none at the top)."""

    def forward(self, x: Tensor) -> Tensor:
        top, left = (side % 2 for side in x.shape[-2:])
        return F.pad(x, (left, 1, top, 1))


def glorot(module: M) -> M:
    """Glorot-uniform weights and zero biases in every convolution and linear layer, as in Keras."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module
