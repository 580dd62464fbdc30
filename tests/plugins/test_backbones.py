"""Backbones: shapes, sizes known from the literature, tasks kept apart, impossible images."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from fsb_backbones.conv import channels_last, conv4, conv4_relation, conv4_strided
from fsb_backbones.resnet import resnet12, resnet18
from torch import Tensor, nn

from fewshot_bench.errors import ConfigError
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.nn import TaskBatchNorm, per_task, task_weights, uses_batch_statistics
from fewshot_bench.nn.norm import observed
from fewshot_bench.nn.tasks import _batched, _looped

FACTORIES = {
    "conv4": conv4,
    "conv4-strided": conv4_strided,
    "conv4-relation": conv4_relation,
    "resnet12": resnet12,
    "resnet18": resnet18,
}
SMALL = {
    "conv4": {"channels": 4},
    "conv4-strided": {"channels": 4},
    "conv4-relation": {"channels": 4},
    "resnet12": {"width": 4},
}
ALL = pytest.mark.parametrize("name", FACTORIES)


def make(name: str, shape: tuple[int, int, int] = (1, 28, 28), **options: object) -> nn.Module:
    torch.manual_seed(0)
    return FACTORIES[name](shape, **(SMALL.get(name, {}) | options))


def test_these_are_all_that_are_registered() -> None:
    of_this_plugin = {
        name
        for name, found in Registry.discover().names("backbones").items()
        if any(item.target.startswith("fsb_backbones.") for item in found)
    }
    assert of_this_plugin == set(FACTORIES)


@ALL
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 84, 84), (3, 32, 45), (2, 17, 16)])
def test_out_shape_is_what_comes_out(name: str, shape: tuple[int, int, int]) -> None:
    backbone = make(name, shape)
    with torch.no_grad():
        assert backbone(torch.zeros(2, *shape)).shape == (2, *backbone.out_shape)


@pytest.mark.parametrize(
    ("name", "shape", "out_shape", "parameters"),
    [
        # Snell et al. 2017: 64 features of an Omniglot image, 1600 of an 84x84 one.
        ("conv4", (1, 28, 28), (64, 1, 1), 111_936),
        ("conv4", (3, 84, 84), (64, 5, 5), 113_088),
        ("conv4-strided", (1, 28, 28), (64, 2, 2), 111_936),
        # Sung et al. 2018: H = 64 behind two more halvings of 5x5, H = 576 of 19x19.
        ("conv4-relation", (1, 28, 28), (64, 5, 5), 111_936),
        ("conv4-relation", (3, 84, 84), (64, 19, 19), 113_088),
        # Lee et al. 2019: 640 maps, 12.4 million weights.
        ("resnet12", (3, 84, 84), (640, 5, 5), 12_424_320),
        # He et al. 2016: 11,689,512 weights, of which the classifier has 513,000.
        ("resnet18", (3, 224, 224), (512, 7, 7), 11_176_512),
    ],
)
def test_default_sizes_are_those_of_the_literature(
    name: str, shape: tuple[int, int, int], out_shape: tuple[int, int, int], parameters: int
) -> None:
    backbone = FACTORIES[name](shape)
    assert backbone.out_shape == out_shape
    assert sum(p.numel() for p in backbone.parameters()) == parameters


@ALL
@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_every_normalization_is_a_task_batch_norm_of_these_statistics(
    name: str, statistics: str
) -> None:
    backbone = make(name, statistics=statistics)
    norms = [m for m in backbone.modules() if isinstance(m, TaskBatchNorm)]
    assert norms
    assert {m.statistics for m in norms} == {statistics}
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in backbone.modules())
    assert uses_batch_statistics(backbone) is (statistics == "batch")


@pytest.mark.parametrize(
    ("name", "statistics"),
    [("conv4", "running"), ("conv4-strided", "batch"), ("resnet12", "running")],
)
def test_default_statistics_are_those_of_the_papers(name: str, statistics: str) -> None:
    norms = (m for m in make(name).modules() if isinstance(m, TaskBatchNorm))
    assert {m.statistics for m in norms} == {statistics}


@ALL
def test_tasks_are_kept_apart_on_every_path(name: str) -> None:
    backbone, x = make(name, (1, 16, 16)).double(), torch.randn(2, 3, 1, 16, 16).double()
    x[1] *= 5
    weights = task_weights(backbone, 2)
    alone = torch.stack([backbone(task) for task in x])
    for together in (
        per_task(backbone, x),
        _looped(backbone, x, weights),
        _batched(backbone, x, weights),
    ):
        torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["conv4", "resnet12", "resnet18"])
def test_running_statistics_of_every_layer_are_observed(name: str) -> None:
    backbone = make(name, statistics="running")
    with observed(backbone, 2) as buffers, torch.no_grad():
        per_task(backbone, torch.randn(2, 3, 1, 28, 28))
    running = {n for n, _ in backbone.named_buffers()}
    assert running
    assert set(buffers) == running
    assert {value.shape[0] for value in buffers.values()} == {2}


@ALL
def test_every_parameter_gets_a_gradient(name: str) -> None:
    backbone = make(name)
    y: Tensor = backbone(torch.randn(4, 1, 28, 28))
    gradients = torch.autograd.grad(y.square().sum(), list(backbone.parameters()))
    assert all(bool(g.isfinite().all()) for g in gradients)


@pytest.mark.parametrize("name", ["conv4", "resnet12"])
def test_an_image_that_is_too_small_is_told(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} .* 15x28 is too small. Give --image-size 16"):
        make(name, (1, 15, 28))


def test_torchvision_is_imported_only_by_what_needs_it() -> None:
    code = (
        "import sys; from fsb_backbones.resnet import resnet12, resnet18; resnet12((1, 16, 16));"
        "assert 'torchvision' not in sys.modules; resnet18((1, 16, 16));"
        "assert 'torchvision' in sys.modules"
    )
    path = f"import sys; sys.path[:0] = {sys.path!r}; "
    subprocess.run([sys.executable, "-c", path + code], check=True)


def test_conv4_is_the_network_of_the_paper() -> None:
    """Convolution, batch norm, ReLU, max-pool, in this order and in the usual layout."""
    backbone, x = make("conv4", (3, 21, 18)).double(), torch.randn(5, 3, 21, 18).double()
    y = x
    for conv, norm in zip(
        (m for m in backbone.modules() if isinstance(m, nn.Conv2d)),
        (m for m in backbone.modules() if isinstance(m, TaskBatchNorm)),
        strict=True,
    ):
        y = nn.functional.conv2d(y, conv.weight, conv.bias, padding=1)
        y = nn.functional.batch_norm(y, None, None, norm.weight, norm.bias, True)
        y = nn.functional.max_pool2d(nn.functional.relu(y), 2)
    torch.testing.assert_close(backbone(x), y, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_last_changes_the_layout_and_no_pixel(channels: int) -> None:
    x = torch.randn(2, channels, 5, 6)
    y = channels_last(x)
    assert torch.equal(x, y)
    assert y.stride() == (30 * channels, 1, 6 * channels, channels)


def test_the_defaults_of_keras_by_hand() -> None:
    net = make("conv4-strided", framework="keras").double()
    first = net.blocks[0]
    pad, convolution, norm = first[0], first[1], first[2]
    assert norm.eps == 1e-3
    assert not convolution.bias.any()
    limit = (6 / (9 * 1 + 9 * 4)) ** 0.5  # Glorot and Bengio 2010, eq. 16
    weights = convolution.weight.detach()
    assert 0.8 * limit < float(weights.abs().max()) <= limit
    x = torch.randn(1, 1, 28, 28, dtype=torch.float64)
    at = convolution(pad(x)).detach()
    assert at.shape == (1, 4, 14, 14)
    # "same" at stride 2: output (0, 0) sees rows and columns 0 to 2, the last one 26 and 27.
    torch.testing.assert_close(at[0, :, 0, 0], (weights * x[..., :3, :3]).sum((1, 2, 3)))
    corner = (weights[..., :2, :2] * x[..., 26:, 26:]).sum((1, 2, 3))
    torch.testing.assert_close(at[0, :, -1, -1], corner)
    assert net.out_shape == (4, 2, 2)
    assert net(x).shape == (1, 4, 2, 2)
