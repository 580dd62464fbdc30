"""Convolutions of many tasks, each under weights of its own, as batched matrix products.

Under ``vmap`` over tasks torch makes one grouped convolution of them: its kernels are slow for
many small groups, and its second derivative is a loop over groups. Here the windows of the images
become the columns of a matrix (im2col), and one batched product gives every task its maps. Unlike
in torch's ``unfold``, channels come first, then images: the columns [C * kh * kw, N * h * w] and
the maps [out, N * h * w] of a task are contiguous, and no layer has to transpose.

A window's gradient is the sum over the windows that a pixel is in: :class:`_Columns` and
:class:`_Pixels` are linear, and each is the other's derivative, so that any order can be taken.
"""

from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

Pair = tuple[int, int]


@dataclass(frozen=True)
class Windows:
    """The windows of a convolution in images of [height, width]."""

    image: Pair
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair

    @property
    def out(self) -> Pair:
        return tuple(  # type: ignore[return-value]
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(
                self.image, self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )

    def places(self, i: int, j: int) -> tuple[slice, ...]:
        """Rows and columns of a padded image at position (i, j) of the windows."""
        first = (i * self.dilation[0], j * self.dilation[1])
        return tuple(
            slice(a, a + s * (n - 1) + 1, s)
            for a, s, n in zip(first, self.stride, self.out, strict=True)
        )


class MatrixProducts(TorchFunctionMode):
    """A block in which convolutions of one group are matrix products; for use under ``vmap``."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (F.conv2d, torch.conv2d):
            return _convolve(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _convolve(
    plain: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | Pair = 1,
    padding: int | Pair | str = 0, dilation: int | Pair = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """``conv2d`` of [N, C, H, W]; ``plain`` for all other arguments."""
    windows = None
    if groups == 1 and not isinstance(padding, str) and input.dim() == 4:
        sizes = (input.shape[2:], weight.shape[2:], stride, padding, dilation)
        windows = Windows(*map(_pair, sizes))
    if windows is None or min(windows.out) < 1:
        return cast(Tensor, plain(input, weight, bias, stride, padding, dilation, groups))
    columns: Tensor = _Columns.apply(input.transpose(0, 1), windows)
    y = weight.flatten(1) @ columns.flatten(3).flatten(0, 2)
    if bias is not None:
        y = y + bias.unsqueeze(-1)
    return y.unflatten(-1, (len(input), *windows.out)).transpose(0, 1)


def _pair(value: Any) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _merged(function: Any, info: Any, in_dims: Any, x: Tensor, windows: Windows) -> Any:
    """Apply a function under ``vmap``: the tasks are further channels."""
    y = function.apply(x.movedim(in_dims[0], 0).flatten(0, 1), windows)
    return y.unflatten(0, (info.batch_size, -1)), 0


def _kernels(x: Tensor) -> Any:
    """One kernel for each copy where there is a GPU and Triton; None: torch's operations."""
    return _triton(x.device) if x.is_cuda else None


@cache
def _triton(device: torch.device) -> Any:
    """The kernels, compared with torch's operations once a process; None where they fail."""
    try:
        from fewshot_bench.nn import columns_triton
    except ImportError:  # not every build of torch has it
        return None
    return columns_triton if agree(columns_triton, device) else None


def agree(kernels: Any, device: torch.device) -> bool:
    """Whether kernels and torch's operations give the same bits, on a small example."""
    windows = Windows((7, 6), (3, 2), (2, 1), (1, 1), (1, 2))
    x = torch.arange(2 * 3 * 7 * 6, device=device, dtype=torch.float32).view(2, 3, 7, 6)
    windowed = _windows_of(x, windows)
    try:
        return torch.equal(kernels.columns(x, windows), windowed) and torch.equal(
            kernels.pixels(windowed, windows), _sums_over(windowed, windows)
        )
    except Exception:  # whatever a compiler raises: torch's operations are slower, and as right
        return False


def _windows_of(x: Tensor, windows: Windows) -> Tensor:
    rows, columns = windows.padding
    x = F.pad(x, (columns, columns, rows, rows)) if rows or columns else x.contiguous()
    channel, image, row, column = x.stride()
    sizes = (x.shape[0], *windows.kernel, x.shape[1], *windows.out)
    strides = (
        channel, windows.dilation[0] * row, windows.dilation[1] * column,
        image, windows.stride[0] * row, windows.stride[1] * column,
    )  # fmt: skip
    return x.as_strided(sizes, strides).contiguous()


def _sums_over(windowed: Tensor, windows: Windows) -> Tensor:
    channels, kh, kw, n, _, _ = windowed.shape
    (top, left), (height, width) = windows.padding, windows.image
    total = windowed.new_zeros(channels, n, height + 2 * top, width + 2 * left)
    for i, j in product(range(kh), range(kw)):
        total[:, :, *windows.places(i, j)] += windowed[:, i, j]
    return total[:, :, top : top + height, left : left + width].contiguous()


class _OfWindows(torch.autograd.Function):
    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.windows = inputs


class _Columns(_OfWindows):
    """[C, N, H, W] -> [C, kh, kw, N, h, w]: the pixels of each window."""

    @staticmethod
    def forward(x: Tensor, windows: Windows) -> Tensor:
        fused = _kernels(x)
        return fused.columns(x.contiguous(), windows) if fused else _windows_of(x, windows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Pixels.apply(gradients[0], ctx.windows), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *values: Any) -> Any:
        return _merged(_Columns, info, in_dims, *values)


class _Pixels(_OfWindows):
    """[C, kh, kw, N, h, w] -> [C, N, H, W]: at each pixel the sum over the windows it is in."""

    @staticmethod
    def forward(windowed: Tensor, windows: Windows) -> Tensor:
        fused = _kernels(windowed)
        sums = fused.pixels if fused else _sums_over
        return sums(windowed.contiguous() if fused else windowed, windows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Columns.apply(gradients[0], ctx.windows), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *values: Any) -> Any:
        return _merged(_Pixels, info, in_dims, *values)
