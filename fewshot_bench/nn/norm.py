"""Batch normalization that is right when a batch holds several tasks, accurate, and cheap to
differentiate twice.

Running statistics do not change in the forward pass: the training loop collects what they would
become for each task (:func:`observed`) and averages that over tasks.

**Under vmap** torch's gradient through an affine ``batch_norm`` gives silently wrong meta-gradients
(off by up to 2.6 % against finite differences; torch 2.13 and 2.15), so the layer has derivatives
of its own there.

**Accurate.** torch's CPU kernels sum the values of a channel in channels-last layout one after
another in float32, in the contiguous layout in float64 (docs/concepts/precision.md has figures).
Here the rows of a channels-last tensor, M values of C channels, are viewed as M/G rows of G*C
channels, G groups of each channel. The same kernels then sum at most ``ROWS`` values in a row, at
the same speed, and the groups are added in float64.

**Twice.** torch's second derivative of ``batch_norm`` is a sum of some twenty elementwise products.
Written out per channel it is one more pass of the first derivative's own kernel, one inner product,
and two linear combinations. With xhat = (x - mu) / sigma, M the mean over the n values of a
channel, and dy the incoming gradient, the first derivative is (Ioffe and Szegedy 2015)

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

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot_bench.utils.devices import is_gpu
from fewshot_bench.utils.torch_private import (
    batch_norm_backward,
    batch_norm_forward,
    batch_norm_moments,
    not_channels,
    per_channel,
)

Statistics = Literal["batch", "running"]
Observations = dict[nn.Module, list[tuple[Tensor, Tensor]]]  # layer: (mean, variance) of each pass
ROWS = 64  # values of a channel that are summed one after another, at most


class _Context(threading.local):
    tasks: int = 1  # tasks in the flattened batch
    vmapped: bool = False
    strategy: str = "auto"  # how per-task weights are run; see tasks.py
    double_backward: bool = False  # the result will be differentiated twice; see tasks.py
    observer: Observations | None = None
    recording: list[Tensor] | None = None  # stopped gradients; see stop.py
    replaying: Iterator[Tensor] | None = None


context = _Context()


@contextmanager
def norm_context(**changes: object) -> Iterator[None]:
    """Set fields of this thread's context inside a block."""
    before = {name: getattr(context, name) for name in changes}
    for name, value in changes.items():
        setattr(context, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)


class TaskBatchNorm(nn.Module):
    """Batch normalization over [N, C] or [N, C, H, W], separately for each task.

    Arguments:
        statistics: ``"batch"``: of the current batch, in training and at test (transductive);
            ``"running"``: of the current batch in training, running averages at test.
        momentum: weight of a new observation in the running averages.
        eps: added to the variance.

    Calling it raises ValueError if the tasks of a batch have different numbers of rows.

    Source: Ioffe and Szegedy 2015; for its two uses in meta-learning, Bronskill et al. 2020.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self, channels: int, statistics: Statistics = "batch", momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> None:  # fmt: skip
        super().__init__()
        self.statistics, self.momentum, self.eps = statistics, momentum, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        if statistics == "running":
            self.register_buffer("running_mean", torch.zeros(channels))
            self.register_buffer("running_var", torch.ones(channels))

    def extra_repr(self) -> str:
        return f"{self.weight.shape[-1]}, statistics={self.statistics}"

    def forward(self, x: Tensor) -> Tensor:
        if self.statistics == "running" and not self.training:
            return self._by_running_statistics(x)
        observer = context.observer if self.statistics == "running" else None
        if context.vmapped:
            y, *pair = batch_norm(x, self.weight, self.bias, self.eps)
            if observer is not None:
                observer.setdefault(self, []).append((pair[0], pair[1]))
            return y
        tasks = context.tasks
        if len(x) % tasks:
            raise ValueError(
                f"TaskBatchNorm: expected as many images of each task, one task after the other, "
                f"got {len(x)} images of {tasks} tasks. Call the network once for each task."
            )
        if not is_gpu(x):
            if x.dtype not in (torch.float32, torch.float64):
                x = x.contiguous()  # the sums of half precision are accurate in no other layout
            if channels_last(x) or context.double_backward:
                return self._accurately(x, observer)
        seen = None
        if observer is not None:
            # batch_norm stores mean and unbiased variance (momentum 1) on its way: a pass of their
            # own would cost a fifth of a training step on a CPU.
            seen = self.running_mean.new_zeros(2, tasks, len(self.weight))
            observer.setdefault(self, []).append((seen[0], seen[1]))
        mean, variance = (None, None) if seen is None else seen.flatten(1).unbind()
        if tasks == 1:
            return F.batch_norm(x, mean, variance, self.weight, self.bias, True, 1.0, self.eps)
        # [T*N, C, ...] -> [N, T*C, ...]: each (task, channel) becomes a channel of its own.
        split = x.unflatten(0, (tasks, -1)).transpose(0, 1).flatten(1, 2)
        normal = F.batch_norm(split, mean, variance, None, None, True, 1.0, self.eps)
        normal = normal.unflatten(1, (tasks, -1)).transpose(0, 1).flatten(0, 1)
        return _affine(normal, self.weight, self.bias)

    def _accurately(self, x: Tensor, observer: Observations | None) -> Tensor:
        """One task after the other, in the layout of the images."""
        parts = [x] if context.tasks == 1 else x.unflatten(0, (context.tasks, -1)).unbind()
        each = [batch_norm(part, self.weight, self.bias, self.eps) for part in parts]
        y, mean, variance = zip(*each, strict=True)
        if observer is not None:
            observer.setdefault(self, []).append((torch.stack(mean), torch.stack(variance)))
        return y[0] if len(parts) == 1 else torch.cat(y)

    def _by_running_statistics(self, x: Tensor) -> Tensor:
        mean, variance = self.running_mean, self.running_var
        plain = context.vmapped or is_gpu(x) or not torch.is_grad_enabled()
        if plain or not channels_last(x):
            return F.batch_norm(x, mean, variance, self.weight, self.bias, False, 0.0, self.eps)
        # torch's gradients by weight and bias would be sums as inaccurate as its statistics.
        scale = self.weight * (variance + self.eps).rsqrt()
        return _affine(x - mean.view(per_channel(x)), scale, self.bias)


def _affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    shape = per_channel(x)
    return torch.addcmul(shift.view(shape), x, scale.view(shape))


@contextmanager
def observed(module: nn.Module, tasks: int) -> Iterator[dict[str, Tensor]]:
    """Collect what the running statistics below ``module`` would become: {buffer name: [T, C]}.

    Filled at the end of the block. Several passes through one layer are averaged; a layer without
    a pass in training mode gives nothing.
    """
    buffers: dict[str, Tensor] = {}
    seen: Observations = {}
    with norm_context(observer=seen):
        yield buffers
    for name, layer in module.named_modules():
        if layer in seen and isinstance(layer, TaskBatchNorm):
            running = {"running_mean": layer.running_mean, "running_var": layer.running_var}
            columns = zip(*seen[layer], strict=True)
            for (buffer, before), values in zip(running.items(), columns, strict=True):
                each = torch.stack([_of_each_task(v, tasks) for v in values]).mean(0)
                value = torch.lerp(before.expand_as(each), each, layer.momentum)
                buffers[f"{name}.{buffer}".lstrip(".")] = value


def _of_each_task(values: Tensor, tasks: int) -> Tensor:
    """The statistics of a pass, [T, C]; it may have had all tasks as one, or several for each."""
    if len(values) % tasks:
        return values.mean(0).expand(tasks, -1)
    return values if len(values) == tasks else values.unflatten(0, (tasks, -1)).mean(1)


def unobserved() -> AbstractContextManager[None]:
    """A block whose passes leave the running statistics alone (in this thread).

    For images that no test shows (a generator's) in ``losses``.
    """
    return norm_context(observer=None)


def uses_batch_statistics(module: nn.Module) -> bool:
    """Whether a layer below ``module`` normalizes test images by statistics of their batch."""
    return any(
        (isinstance(m, TaskBatchNorm) and m.statistics == "batch")
        or (isinstance(m, TORCH_BATCH_NORMS) and not m.track_running_stats)
        for m in module.modules()
    )


TORCH_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def batch_norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize [N, C, ...] by the mean and variance of each channel; for CPUs, and under ``vmap``.

    Returns:
        The normalized values in the layout of x, which can be differentiated any number of times
        (from the third on slowly); and, as constants, the mean [C] and the unbiased variance [C].
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
def _number_of_groups(rows: int) -> int:
    return rows // next(size for size in range(min(rows, ROWS), 0, -1) if rows % size == 0)


def _groups(x: Tensor) -> int:
    """How many groups the values of each channel need; 1: none."""
    # The sums of a GPU are accurate in every layout; NumPy has no half precision.
    if is_gpu(x) or x.dtype not in (torch.float32, torch.float64) or not channels_last(x):
        return 1
    return _number_of_groups(x.numel() // x.shape[1])


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
        return batch_norm_forward(x, gamma, beta, eps)
    n = x.numel() // channels
    means, variances = (
        each.numpy().reshape(groups, channels) for each in batch_norm_moments(_grouped(x, groups))
    )
    with np.errstate(all="ignore"):  # the training loop reports NaN and infinity
        mu = means.mean(0, dtype=np.float64)
        squared = variances.mean(0, dtype=np.float64) + np.square(means - mu).mean(0)
        constants = (mu, squared, 1 / np.sqrt(squared + eps), squared * (n / (n - 1)))
    mean, biased, inverse, variance = _constants(constants, x)
    y = F.batch_norm(x, mean, biased, gamma, beta, False, 0.0, eps)
    return y, mean, inverse, variance


def _first(
    dy: Tensor, x: Tensor, gamma: Tensor, mean: Tensor, inverse: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """dx, dgamma, dbeta; dy has the layout of x."""
    channels, groups = x.shape[1], _groups(x)
    if groups == 1:
        first: Any = batch_norm_backward(dy, x, gamma, mean, inverse, eps)
        return first
    n = x.numel() // channels
    _, *sums = batch_norm_backward(
        _grouped(dy, groups), _grouped(x, groups), None, mean.repeat(groups),
        inverse.repeat(groups), eps, by_x=False,
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
    shape = per_channel(x)
    dx = torch.addcmul(rest.view(shape), x, of_x.view(shape)).addcmul_(dy, of_dy.view(shape))
    return dx, by_gamma, by_beta


def _constants(values: tuple[Any, ...], x: Tensor) -> tuple[Tensor, ...]:
    """Constants of each channel, in the type of x."""
    # Of NumPy: dozens of tiny operations of torch, each of which hands the interpreter to another
    # thread, would cost as much as the sums.
    return torch.from_numpy(np.stack(values)).to(x.dtype).unbind()


def _side_by_side(
    function: type[torch.autograd.Function], tasks: int, in_dims: tuple[int | None, ...],
    values: tuple[Any, ...],
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:  # fmt: skip
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
        # A Function costs as much as the sums of a small layer do.
        function = _Backward.apply if torch.is_grad_enabled() else _Backward.forward
        return (*function(dy, x, gamma, mean, inverse, ctx.eps), None)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *values: Any) -> Any:
        return _side_by_side(_Forward, info.batch_size, in_dims, values)


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
        if torch.is_grad_enabled():  # a third derivative is needed
            return (*_second_plainly(gradients, dy, x, gamma, ctx.eps), None, None, None)
        a, b, c = gradients
        dy, a = _laid_out_as(dy, x), _laid_out_as(a, x)
        n = x.numel() / x.shape[1]
        s, d = (total / n for total in ctx.sums)
        by_dy, nr, na = _first(a, x, gamma, mean, inverse, ctx.eps)
        r, mean_a = nr / n, na / n
        q = (a * dy).sum(not_channels(x)) / n
        gap = q - mean_a * d - r * s

        # xhat = inverse * x - inverse * mean: both sums become linear in x, a and dy.
        scale = gamma * inverse * inverse
        of_dy = b * inverse - scale * r
        of_a = -scale * s
        of_xhat = -scale * (gap - 2 * r * s) - b * inverse * s
        rest = -of_a * mean_a - of_dy * d
        shape = per_channel(x)

        def each(values: Tensor) -> Tensor:
            return values.view(shape)

        by_x = torch.addcmul(each(rest - of_xhat * inverse * mean), x, each(of_xhat * inverse))
        by_x.addcmul_(a, each(of_a)).addcmul_(dy, each(of_dy))
        by_dy.addcmul_(x, each(b * inverse)).add_(each(c - b * inverse * mean))
        return by_dy, by_x, n * inverse * gap, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *values: Any) -> Any:
        return _side_by_side(_Backward, info.batch_size, in_dims, values)


def _second_plainly(
    gradients: tuple[Tensor, ...], dy: Tensor, x: Tensor, gamma: Tensor, eps: float
) -> tuple[Tensor, ...]:
    """The gradients by dy, x and gamma in operations that torch can differentiate further."""
    # dy may come from x: by an alias of each, the gradient is the partial one.
    dy, x, gamma = (tensor.view_as(tensor) for tensor in (dy, x, gamma))
    axes, shape, n = not_channels(x), per_channel(x), x.numel() / x.shape[1]
    centered = x - x.mean(axes, keepdim=True)
    inverse = (centered.square().mean(axes, keepdim=True) + eps).rsqrt()
    xhat = centered * inverse
    dgamma, dbeta = (dy * xhat).sum(axes), dy.sum(axes)
    inner = dy - dbeta.view(shape) / n - xhat * dgamma.view(shape) / n
    first = (gamma.view(shape) * inverse * inner, dgamma, dbeta)
    return torch.autograd.grad(
        first, (dy, x, gamma), gradients, create_graph=True, materialize_grads=True
    )
