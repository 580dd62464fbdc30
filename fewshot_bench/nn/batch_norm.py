"""Batch normalization by the statistics of the batch: accurate in every layout, cheap to
differentiate twice.

**Accurate.** torch's CPU kernels sum the values of a channel in channels-last layout one after
another in float32: with 176,400 values a channel their output is off by 1e-4, where the contiguous
layout, whose sums are float64, is off by 5e-7 (docs/concepts/precision.md has the figures and a
script). Here the rows of such a tensor, M values of C channels, are viewed as M/G rows of G*C
channels, G groups of each channel. The same kernels then sum at most ``ROWS`` values in a row, at
the same speed, and the groups are put together in float64.

**Twice.** torch's second derivative of ``batch_norm`` is a sum of some twenty elementwise products,
a fifth of a second-order MAML step on a CPU. Written out per channel it is one more pass of the
first derivative's own kernel, one inner product, and two linear combinations.

With xhat = (x - mu) / sigma, M the mean over the n values of a channel, and dy the gradient that
comes in, the first derivative is (Ioffe and Szegedy 2015)

    dx = gamma / sigma * (dy - D - xhat * S),  dgamma = n S,  dbeta = n D,
    D = M(dy),  S = M(dy xhat).

Let a, b, c be the gradients by dx, dgamma and dbeta, A = M(a), R = M(a xhat), Q = M(a dy). What is
differentiated is L = n gamma / sigma * (Q - A D - R S) + n b S + n c D, and with
d sigma = xhat / n, dS = (dy - D - xhat S) / (n sigma) and dR = (a - A - xhat R) / (n sigma),

    dL/ddy    = gamma / sigma * (a - A - xhat R) + b xhat + c
    dL/dgamma = n / sigma * (Q - A D - R S)
    dL/dx     = -gamma / sigma^2 * (xhat (Q - A D - 3 R S) + S (a - A) + R (dy - D))
                + b / sigma * (dy - D - xhat S).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewshot_bench.utils.devices import is_gpu

aten = torch.ops.aten

ROWS = 64  # values of a channel that are summed one after another, at most


def batch_norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize by the mean and variance of each channel; for CPUs, and under ``vmap``.

    Arguments:
        x: [N, C, ...], in any layout; the result has the same.
        gamma, beta: [C].
        eps: added to the variance.

    Returns:
        The normalized values, which can be differentiated any number of times (from the third
        on slowly); and, as constants, the mean [C] and the unbiased variance [C].

    Raises:
        ValueError: a channel has one value.
    """
    if x.numel() == x.shape[1]:
        raise ValueError(f"expected more than one value per channel, got input {list(x.shape)}")
    y, mean, _, variance = _Forward.apply(x, gamma, beta, eps)
    return y, mean, variance


def channels_last(x: Tensor) -> bool:
    """Whether a channel's values lie C apart: torch's kernels sum them one after another."""
    if x.is_contiguous():
        return 0 < x.numel() == x.shape[0] * x.shape[1]  # one value of each image: either layout
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


def _laid_out_as(tensor: Tensor, x: Tensor) -> Tensor:
    if x.dim() == 4 and channels_last(x):
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor.contiguous()


@lru_cache(maxsize=256)
def _parted(rows: int) -> int:
    """Into how many groups of equal size so many values of a channel are parted."""
    most = min(rows, ROWS)
    return rows // next(size for size in range(most, 0, -1) if rows % size == 0)


def _groups(x: Tensor) -> int:
    """Into how many groups the values of each channel have to be parted; 1: into none."""
    if is_gpu(x) or x.dtype not in (torch.float32, torch.float64):
        return 1  # the sums of a GPU are accurate in every layout; NumPy has no half precision
    return _parted(x.numel() // x.shape[1]) if channels_last(x) else 1


def _grouped(x: Tensor, groups: int) -> Tensor:
    """[N, C, ...], channels-last, as [1, groups * C, values / groups, 1]: a view."""
    channels = groups * x.shape[1]
    return x.as_strided((1, channels, x.numel() // channels, 1), (x.numel(), 1, channels, channels))


def _normalized(
    x: Tensor, gamma: Tensor, beta: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, mean, 1 / sigma, and the unbiased variance."""
    channels, groups = x.shape[1], _groups(x)
    if groups == 1:
        # With a momentum of 1 it stores mean and unbiased variance.
        mean, variance = x.new_zeros(2, channels, dtype=gamma.dtype).unbind()
        y, mean, inverse = aten.native_batch_norm(x, gamma, beta, mean, variance, True, 1.0, eps)
        return y, mean, inverse, variance
    n = x.numel() // channels
    means, variances = (
        each.numpy().reshape(groups, channels)
        for each in aten.batch_norm_update_stats(_grouped(x, groups), None, None, 0.0)
    )
    with np.errstate(all="ignore"):  # the training loop looks for NaN and infinity
        mu = means.mean(0, dtype=np.float64)
        squared = variances.mean(0, dtype=np.float64) + np.square(means - mu).mean(0)
        constants = (mu, squared, 1 / np.sqrt(squared + eps), squared * (n / (n - 1)))
    mean, biased, inverse, variance = _constants(constants, x)
    y = aten.native_batch_norm(x, gamma, beta, mean, biased, False, 0.0, eps)[0]
    return y, mean, inverse, variance


def _first(
    dy: Tensor, x: Tensor, gamma: Tensor, mean: Tensor, inverse: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """dx, dgamma, dbeta; dy has the layout of x."""
    channels, groups = x.shape[1], _groups(x)
    wanted = [groups == 1, True, True]
    if groups == 1:
        first: tuple[Tensor, Tensor, Tensor] = aten.native_batch_norm_backward(
            dy, x, gamma, None, None, mean, inverse, True, eps, wanted
        )
        return first
    n = x.numel() // channels
    _, *sums = aten.native_batch_norm_backward(
        _grouped(dy, groups), _grouped(x, groups), None, None, None,
        mean.repeat(groups), inverse.repeat(groups), True, eps, wanted,
    )  # fmt: skip
    with np.errstate(all="ignore"):
        dgamma, dbeta = (
            each.numpy().reshape(groups, channels).sum(0, dtype=np.float64) for each in sums
        )
        # dx = dy * scale + x * slope + rest: linear in dy and x.
        mu, inv = mean.numpy(), inverse.numpy().astype(np.float64)
        scale = gamma.detach().numpy() * inv
        slope = -scale * inv * dgamma / n
        constants = (scale, slope, -scale * dbeta / n - slope * mu, dgamma, dbeta)
    of_dy, of_x, rest, by_gamma, by_beta = _constants(constants, x)
    shape = (channels,) + (1,) * (x.dim() - 2)
    dx = torch.addcmul(rest.view(shape), x, of_x.view(shape)).addcmul_(dy, of_dy.view(shape))
    return dx, by_gamma, by_beta


def _constants(values: tuple[Any, ...], x: Tensor) -> tuple[Tensor, ...]:
    """Of each channel, in the type of x. NumPy makes them: dozens of tiny operations of torch, each
    of which hands the interpreter to another thread, would cost as much as the sums do.
    """
    return torch.from_numpy(np.stack(values)).to(x.dtype).unbind()


def _side_by_side(
    function: type[torch.autograd.Function],
    tasks: int,
    in_dims: tuple[int | None, ...],
    values: tuple[Any, ...],
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """Call a function of images [N, C, ...] and constants [C] for all tasks of a ``vmap``.

    The channels of the tasks lie side by side, [T, N, C, ...] as [1, T * C, N * ...]: a view where
    the channels of a task lie before its images (columns.py).
    """
    sizes = list(values[0].shape)
    if in_dims[0] is not None:
        del sizes[in_dims[0]]
    n, _, *space = sizes

    def merged(value: Any, dim: int | None) -> Any:
        if not isinstance(value, Tensor):
            return value
        value = value.expand(tasks, *value.shape) if dim is None else value.movedim(dim, 0)
        if value.dim() == 2:
            return value.flatten()
        return value.transpose(1, 2).flatten(2).flatten(0, 1).unsqueeze(0)

    def parted(value: Tensor) -> Tensor:
        if value.dim() == 1:
            return value.view(tasks, -1)
        return value.view(tasks, -1, n, *space).transpose(1, 2)

    outputs: tuple[Tensor, ...] = function.apply(*map(merged, values, in_dims))
    return tuple(map(parted, outputs)), (0,) * len(outputs)


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, ...]:
        return _normalized(x, gamma, beta, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, gamma, _, ctx.eps = inputs
        _, mean, inverse, variance = output
        ctx.mark_non_differentiable(mean, inverse, variance)
        ctx.save_for_backward(x, gamma, mean, inverse)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        dy, (x, gamma, mean, inverse) = gradients[0], ctx.saved_tensors
        arguments = (dy, x, gamma, mean, inverse, ctx.eps)
        # A Function costs as much as the sums of a small layer do.
        again = torch.is_grad_enabled()
        first = _Backward.apply(*arguments) if again else _Backward.forward(*arguments)
        return (*first, None)

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, x: Tensor, gamma: Tensor, beta: Tensor, eps: float
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """The channels of all tasks side by side."""
        return _side_by_side(_Forward, info.batch_size, in_dims, (x, gamma, beta, eps))


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(
        dy: Tensor, x: Tensor, gamma: Tensor, mean: Tensor, inverse: Tensor, eps: float
    ) -> tuple[Tensor, ...]:
        return _first(_laid_out_as(dy, x), x, gamma, mean, inverse, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        dy, x, gamma, mean, inverse, ctx.eps = inputs
        _, dgamma, dbeta = output
        # dgamma and dbeta as numbers: an output that was saved would hold its own graph.
        ctx.save_for_backward(dy, x, gamma, mean, inverse)
        ctx.sums = dgamma.detach(), dbeta.detach()
        ctx.set_materialize_grads(True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        dy, x, gamma, mean, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody wants to differentiate this once more
            return (*_second_plainly(gradients, dy, x, gamma, ctx.eps), None, None, None)
        a, b, c = gradients
        dy, a = _laid_out_as(dy, x), _laid_out_as(a, x)
        n = x.numel() / x.shape[1]
        s, d = (total / n for total in ctx.sums)
        by_dy, nr, na = _first(a, x, gamma, mean, inverse, ctx.eps)
        r, mean_a = nr / n, na / n
        axes = [0, *range(2, x.dim())]
        q = (a * dy).sum(axes) / n
        gap = q - mean_a * d - r * s

        # xhat = inverse * x - inverse * mean: both sums become linear in x, a and dy.
        scale = gamma * inverse * inverse
        of_dy = b * inverse - scale * r
        of_a = -scale * s
        of_xhat = -scale * (gap - 2 * r * s) - b * inverse * s
        rest = -of_a * mean_a - of_dy * d
        shape = (1, -1) + (1,) * (x.dim() - 2)

        def each(values: Tensor) -> Tensor:
            return values.view(shape)

        by_x = torch.addcmul(each(rest - of_xhat * inverse * mean), x, each(of_xhat * inverse))
        by_x.addcmul_(a, each(of_a)).addcmul_(dy, each(of_dy))
        by_dy.addcmul_(x, each(b * inverse)).add_(each(c - b * inverse * mean))
        return by_dy, by_x, n * inverse * gap, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, dy: Tensor, x: Tensor, *rest: Any) -> Any:
        """As of :class:`_Forward`."""
        return _side_by_side(_Backward, info.batch_size, in_dims, (dy, x, *rest))


def _second_plainly(
    gradients: tuple[Tensor, ...], dy: Tensor, x: Tensor, gamma: Tensor, eps: float
) -> tuple[Tensor, ...]:
    """The gradients by dy, x and gamma in operations that torch can differentiate further."""
    # dy may come from x: by an alias of each, the gradient is the partial one.
    dy, x, gamma = (tensor.view_as(tensor) for tensor in (dy, x, gamma))
    axes = [0, *range(2, x.dim())]
    shape = (1, -1) + (1,) * (x.dim() - 2)
    n = x.numel() / x.shape[1]
    centered = x - x.mean(axes, keepdim=True)
    inverse = (centered.square().mean(axes, keepdim=True) + eps).rsqrt()
    xhat = centered * inverse
    dgamma, dbeta = (dy * xhat).sum(axes), dy.sum(axes)
    inner = dy - dbeta.view(shape) / n - xhat * dgamma.view(shape) / n
    first = (gamma.view(shape) * inverse * inner, dgamma, dbeta)
    return torch.autograd.grad(
        first, (dy, x, gamma), gradients, create_graph=True, materialize_grads=True
    )
