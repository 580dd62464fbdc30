"""The two copies of columns.py as one GPU kernel each; torch has none for this order of axes.

Of its own operations, the sum over windows took a quarter of a second-order MAML step (H200).
"""

from contextlib import nullcontext
from math import prod
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 512


@triton.jit
def _gather(  # type: ignore[no-untyped-def]
    x, columns, N, H, W, h, w,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    PH: tl.constexpr, PW: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(N * h * w, B)
    row, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks  # row: (channel, i, j)
    channel, i, j = row // (KH * KW), row % (KH * KW) // KW, row % KW
    place = block * B + tl.arange(0, B)  # (image, row, column) of a map
    inside = place < N * h * w
    image = place // (h * w)
    y = place // w % h * SH - PH + i * DH
    z = place % w * SW - PW + j * DW
    seen = inside & (y >= 0) & (y < H) & (z >= 0) & (z < W)
    value = tl.load(
        x + (channel.to(tl.int64) * N + image) * H * W + y * W + z, mask=seen, other=0.0
    )
    tl.store(columns + row.to(tl.int64) * N * h * w + place, value, mask=inside)


@triton.jit
def _add_up(  # type: ignore[no-untyped-def]
    columns, x, N, H, W, h, w,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    PH: tl.constexpr, PW: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(N * H * W, B)
    channel = (tl.program_id(0) // blocks).to(tl.int64)
    # (image, row, column) of an image
    place = tl.program_id(0) % blocks * B + tl.arange(0, B)
    inside = place < N * H * W
    image, y, z = place // (H * W), place // W % H, place % W
    sums: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    total = tl.zeros((B,), sums)
    for i in tl.static_range(KH):
        for j in tl.static_range(KW):
            # In steps of the stride from the first window; a negative one stays negative.
            down, right = y + PH - i * DH, z + PW - j * DW
            there = inside & (down >= 0) & (right >= 0) & (down % SH == 0) & (right % SW == 0)
            down, right = down // SH, right // SW
            there = there & (down < h) & (right < w)
            row = (channel * KH + i) * KW + j
            value = tl.load(
                columns + (row * N + image) * h * w + down * w + right, mask=there, other=0.0
            )
            total += value.to(sums)
    tl.store(x + channel * N * H * W + place, total.to(x.dtype.element_ty), mask=inside)


def columns(x: Tensor, windows: Any) -> Tensor:
    """[C, N, H, W], contiguous -> [C, kh, kw, N, h, w]; see ``_Columns``."""
    channels, n, *_ = x.shape
    out = x.new_empty(channels, *windows.kernel, n, *windows.out)
    sizes = channels * prod(windows.kernel), n * prod(windows.out)
    _launch(_gather, sizes, x, out, n, windows)
    return out


def pixels(windowed: Tensor, windows: Any) -> Tensor:
    """[C, kh, kw, N, h, w], contiguous -> [C, N, H, W]; see ``_Pixels``."""
    channels, _, _, n, *_ = windowed.shape
    out = windowed.new_empty(channels, n, *windows.image)
    _launch(_add_up, (channels, n * prod(windows.image)), windowed, out, n, windows)
    return out


def _launch(kernel: Any, sizes: tuple[int, int], a: Tensor, b: Tensor, n: int, of: Any) -> None:
    grid = (sizes[0] * triton.cdiv(sizes[1], BLOCK),)  # other axes end at 65,535
    # Triton's interpreter, which the tests use, runs on a CPU.
    with torch.cuda.device(a.device) if a.is_cuda else nullcontext():
        kernel[grid](
            a, b, n, *of.image, *of.out, *of.kernel, *of.stride, *of.padding, *of.dilation, BLOCK
        )
