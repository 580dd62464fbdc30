"""Convolutions as matrix products over windows: copies, derivatives, kernels for GPUs."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch.func import vmap

from fewshot_bench.nn.columns import MatrixProducts, Windows, _Columns, _Pixels, agree

SHAPES = {
    "a maml layer": Windows((7, 7), (3, 3), (2, 2), (1, 1), (1, 1)),
    "a protonet layer": Windows((5, 5), (3, 3), (1, 1), (1, 1), (1, 1)),
    "everything uneven": Windows((8, 9), (3, 2), (2, 1), (0, 1), (2, 1)),
    "windows apart": Windows((9, 6), (2, 2), (3, 4), (0, 0), (1, 1)),
}
of_every_shape = pytest.mark.parametrize("windows", SHAPES.values(), ids=SHAPES)


@of_every_shape
def test_windows_are_those_of_unfold(windows: Windows) -> None:
    x = torch.randn(3, 2, *windows.image)
    want = F.unfold(
        x.transpose(0, 1), windows.kernel, windows.dilation, windows.padding, windows.stride
    ).view(2, 3, *windows.kernel, *windows.out)
    assert torch.equal(_Columns.apply(x, windows), want.permute(1, 2, 3, 0, 4, 5))


@of_every_shape
def test_derivatives_of_any_order(windows: Windows) -> None:
    """Each copy is the other's adjoint; gradgradcheck goes through both."""
    x = torch.randn(2, 2, *windows.image, dtype=torch.float64, requires_grad=True)
    y = torch.randn_like(_Columns.apply(x, windows)).detach()
    inner = (_Columns.apply(x, windows) * y).sum()
    assert torch.allclose(inner, (x * _Pixels.apply(y, windows)).sum())

    def cubes(x: torch.Tensor) -> torch.Tensor:
        return _Columns.apply(x, windows).pow(3).sum()

    assert torch.autograd.gradcheck(cubes, (x,))
    assert torch.autograd.gradgradcheck(cubes, (x,))


def test_the_maps_of_a_task_lie_as_the_next_layer_wants_them() -> None:
    """No layer has to transpose: channels before images, in the maps and behind the norm."""
    from fewshot_bench.nn import TaskBatchNorm
    from fewshot_bench.nn.norm import norm_context

    norm, tasks = TaskBatchNorm(4), 3

    def block(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = F.conv2d(x, weight, padding=1)
        return maps, norm(maps).relu()

    with MatrixProducts(), norm_context(vmapped=True):
        outputs = vmap(block)(torch.randn(tasks, 5, 2, 6, 6), torch.randn(tasks, 4, 2, 3, 3))
    for maps in outputs:
        assert maps.shape == (tasks, 5, 4, 6, 6)
        assert maps.transpose(1, 2).is_contiguous()


def test_what_conv2d_takes_and_refuses_is_as_without() -> None:
    x, weight = torch.randn(2, 1, 2, 6, 6), torch.randn(2, 4, 2, 3, 3)
    plain = vmap(lambda x, w: F.conv2d(x, w, padding=1))(x, weight)
    with MatrixProducts():
        by_name = vmap(lambda x, w: F.conv2d(input=x, weight=w, padding=1))(x, weight)
        alone = vmap(lambda x, w: F.conv2d(x, w, padding=1))(x[:, 0], weight)
        with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
            vmap(F.conv2d)(x[..., :2, :2], weight)
    assert torch.allclose(by_name, plain, atol=1e-5)
    assert torch.allclose(alone, plain[:, 0], atol=1e-5)


def test_kernels_that_err_are_not_used() -> None:
    """They are held against torch's operations before anything is computed by them."""
    right = SimpleNamespace(columns=_Columns.forward, pixels=_Pixels.forward)
    wrong = SimpleNamespace(columns=_Columns.forward, pixels=lambda w, s: _Pixels.forward(w, s) + 1)
    broken = SimpleNamespace(columns=None, pixels=None)
    assert agree(right, torch.device("cpu"))
    assert not agree(wrong, torch.device("cpu"))
    assert not agree(broken, torch.device("cpu"))


INTERPRETED = """
import torch
from fewshot_bench.nn import columns_triton as kernels
from fewshot_bench.nn.columns import Windows, _windows_of, _sums_over
for windows in [{shapes}]:
    for dtype in (torch.float32, torch.float64):
        x = torch.randn(3, 4, *windows.image).to(dtype)
        seen = _windows_of(x, windows)
        assert torch.equal(kernels.columns(x, windows), seen)
        part = torch.randn_like(seen)
        assert torch.equal(kernels.pixels(part, windows), _sums_over(part, windows))
    half = torch.randn_like(seen).bfloat16()
    want = _sums_over(half.float(), windows).bfloat16()
    assert torch.allclose(kernels.pixels(half, windows), want, rtol=2**-7)  # a rounding
print("the same")
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="this torch has no Triton")
def test_the_gpus_kernels_by_tritons_interpreter() -> None:
    """Their arithmetic, without a GPU; half precision is summed in float32."""
    source = INTERPRETED.format(shapes=", ".join(map(repr, SHAPES.values())))
    ended = subprocess.run(
        [sys.executable, "-c", source],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout.strip() == "the same", ended.stderr
