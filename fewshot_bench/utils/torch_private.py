"""The names of torch that are not public, all in one place; each falls back to a plain form.

No other module uses private names, but ``testing.meta_device``, which replaces some by name.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.grad import conv2d_input, conv2d_weight
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only, tree_unflatten

__all__ = [
    "TorchDispatchMode", "aten", "batch_norm_backward", "batch_norm_forward", "batch_norm_moments",
    "convolution_backward", "current_autograd_node", "lerp_each_", "next_autograd_number",
    "not_channels", "per_channel", "profiler_settings", "tree_flatten", "tree_leaves",
    "tree_map_only", "tree_unflatten", "without_torch_function",
]  # fmt: skip

aten: Any = torch.ops.aten
_C: Any = torch._C


def batch_norm_forward(
    x: Tensor, gamma: Tensor, beta: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalize [N, C, ...] by its own statistics: y, mean, 1 / sigma, unbiased variance."""
    if operation := getattr(aten, "native_batch_norm", None):
        # With a momentum of 1 it stores mean and unbiased variance.
        mean, variance = x.new_zeros(2, x.shape[1], dtype=gamma.dtype).unbind()
        y, mean, inverse = operation(x, gamma, beta, mean, variance, True, 1.0, eps)
        return y, mean, inverse, variance
    mean, biased = batch_norm_moments(x)
    inverse = (biased + eps).rsqrt()
    n, shape = x.numel() // x.shape[1], per_channel(x)
    y = (x - mean.view(shape)) * (inverse * gamma).view(shape) + beta.view(shape)
    return y, mean, inverse, biased * (n / (n - 1))


def batch_norm_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel of [N, C, ...]."""
    if operation := getattr(aten, "batch_norm_update_stats", None):
        mean, variance = operation(x, None, None, 0.0)
        return mean, variance
    axes = not_channels(x)
    return x.mean(axes), x.var(axes, correction=0)


def batch_norm_backward(
    dy: Tensor, x: Tensor, gamma: Tensor | None, mean: Tensor, inverse: Tensor, eps: float,
    *, by_x: bool = True,
) -> tuple[Tensor | None, Tensor, Tensor]:  # fmt: skip
    """Gradients of :func:`batch_norm_forward` by x (None where not wanted), gamma (None: 1) and
    beta."""
    if operation := getattr(aten, "native_batch_norm_backward", None):
        wanted = [by_x, True, True]
        dx, dgamma, dbeta = operation(dy, x, gamma, None, None, mean, inverse, True, eps, wanted)
        return dx, dgamma, dbeta
    n, shape, axes = x.numel() / x.shape[1], per_channel(x), not_channels(x)
    xhat = (x - mean.view(shape)) * inverse.view(shape)
    dgamma, dbeta = (dy * xhat).sum(axes), dy.sum(axes)
    if not by_x:
        return None, dgamma, dbeta
    scale = inverse if gamma is None else inverse * gamma
    inner = dy - dbeta.view(shape) / n - xhat * dgamma.view(shape) / n
    return scale.view(shape) * inner, dgamma, dbeta


def per_channel(x: Tensor) -> tuple[int, ...]:
    """The shape in which constants [C] apply to [N, C, ...]."""
    return (1, -1) + (1,) * (x.dim() - 2)


def not_channels(x: Tensor) -> list[int]:
    """The axes of [N, C, ...] other than the channels."""
    return [0, *range(2, x.dim())]


def convolution_backward(
    dy: Tensor, x: Tensor, weight: Tensor, sizes: Sequence[Any], groups: int,
    *, by_x: bool, by_weight: bool,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """Gradients of ``conv2d`` by its input and its weight, None where not wanted; ``sizes`` are
    stride, padding and dilation."""
    if operation := getattr(aten, "convolution_backward", None):
        dx, dweight, _ = operation(
            dy, x, weight, None, *sizes, False, [0, 0], groups, [by_x, by_weight, False]
        )
        return dx, dweight
    rest = (*sizes, groups)
    return (
        conv2d_input(x.shape, weight, dy, *rest) if by_x else None,
        conv2d_weight(x, weight.shape, dy, *rest) if by_weight else None,
    )


def lerp_each_(tensors: Sequence[Tensor], targets: Sequence[Tensor], weight: float) -> None:
    """Move each tensor towards its target, in place."""
    if operation := getattr(torch, "_foreach_lerp_", None):
        operation(tensors, targets, weight)
        return
    for tensor, target in zip(tensors, targets, strict=True):
        tensor.lerp_(target, weight)


def current_autograd_node() -> Any:
    """The node whose backward pass runs in this thread; None: none, or torch does not tell."""
    return getattr(_C, "_current_autograd_node", lambda: None)()


def next_autograd_number() -> int:
    """The sequence number that autograd gives to the next node; -1: torch does not tell."""
    return int(getattr(getattr(_C, "_autograd", None), "_get_sequence_nr", lambda: -1)())


def without_torch_function() -> AbstractContextManager[Any]:
    """A block whose calls of torch go past ``__torch_function__`` and its modes, if torch can."""
    return cast(AbstractContextManager[Any], getattr(_C, "DisableTorchFunction", nullcontext)())


def profiler_settings(**settings: Any) -> Any:
    """``experimental_config`` of ``torch.profiler.profile``; None: torch has no such settings."""
    kind = getattr(torch.profiler, "_ExperimentalConfig", None)
    return None if kind is None else kind(**settings)
