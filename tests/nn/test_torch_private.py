"""Names of torch that are not public: each has a plain form, which gives the same numbers."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fewshot_bench
from fewshot_bench.nn import Conv2d, TaskBatchNorm, double_backward, layers
from fewshot_bench.utils import torch_private

PACKAGE = Path(fewshot_bench.__file__).parent
HERE = Path(torch_private.__file__)


@pytest.fixture
def without_aten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_private, "aten", SimpleNamespace())


def draws(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def normalized(x: Tensor) -> list[Tensor]:
    """Output, gradients and second derivatives of a layer."""
    layer = TaskBatchNorm(x.shape[1]).double()
    torch.nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(1))
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    with double_backward():
        y = layer(x)
        first = torch.autograd.grad(y.pow(3).sum(), [x, *layer.parameters()], create_graph=True)
        second = torch.autograd.grad(first[0].pow(2).sum(), [x, layer.weight])
    return [y, *first, *second]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_batch_normalization_without_its_operations(
    layout: torch.memory_format, request: pytest.FixtureRequest
) -> None:
    (x,) = draws((6, 3, 5, 4))
    x = x.contiguous(memory_format=layout)
    expected = normalized(x)
    request.getfixturevalue("without_aten")
    for plain, own in zip(normalized(x), expected, strict=True):
        torch.testing.assert_close(plain, own, rtol=1e-9, atol=1e-9)


def test_convolution_without_its_operation(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(layers, "FEW", 0)
    (x,) = draws((7, 2, 6, 6))
    layer = Conv2d(2, 3, 3, stride=2, padding=1).double()

    def gradients() -> tuple[Tensor, ...]:
        inputs = x.clone().requires_grad_()
        return torch.autograd.grad(layer(inputs).pow(2).sum(), [inputs, *layer.parameters()])

    plain = torch.autograd.grad(
        F.conv2d(x, layer.weight, layer.bias, 2, 1).pow(2).sum(), list(layer.parameters())
    )
    expected = gradients()
    request.getfixturevalue("without_aten")
    for own, other in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-10)
    for own, other in zip(expected[1:], plain, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-10)


def test_averages_without_their_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors, targets = draws((3,), (2, 2)), draws((3,), (2, 2))[::1]
    expected = [a.lerp(b + 1, 0.25) for a, b in zip(tensors, targets, strict=True)]
    monkeypatch.delattr(torch, "_foreach_lerp_")
    torch_private.lerp_each_(tensors, [b + 1 for b in targets], 0.25)
    for own, other in zip(tensors, expected, strict=True):
        torch.testing.assert_close(own, other)


def test_without_what_torch_tells_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_private, "_C", SimpleNamespace())
    monkeypatch.delattr(torch.profiler, "_ExperimentalConfig", raising=False)
    assert torch_private.current_autograd_node() is None
    assert torch_private.next_autograd_number() == -1
    assert torch_private.profiler_settings(verbose=True) is None
    with torch_private.without_torch_function():
        assert torch.ones(2).sum() == 2


def private_names(path: Path) -> list[str]:
    """``torch.ops``, ``torch._x`` and imports of modules of torch that begin with an underscore."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torch"):
            parts = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            found += [f"{path.name}:{node.lineno}" for part in parts if part.startswith("_")]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "torch":
            private = node.attr == "ops" or (node.attr[0] == "_" and node.attr[:2] != "__")
            found += [f"{path.name}:{node.lineno}"] if private else []
    return found


def test_no_other_module_uses_private_names() -> None:
    wrong = [name for path in PACKAGE.rglob("*.py") if path != HERE for name in private_names(path)]
    assert private_names(HERE)
    assert not wrong, "\n".join(wrong)
