"""Residual backbones: the few-shot ResNet-12, and torchvision's ResNet-18.

ResNet-12's weights start as PyTorch's layers do, ResNet-18's as torchvision has them (He et al.
2015).
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Annotated, Literal

from torch import Tensor, nn

from fewshot_bench.errors import ConfigError
from fewshot_bench.nn import Conv2d, TaskBatchNorm

Statistics = Annotated[
    Literal["batch", "running"],
    "batch normalization at test by the statistics of the batch (transductive) or running ones",
]


class ResidualBlock(nn.Module):
    """Three 3x3 convolutions beside a 1x1 shortcut, then Leaky-ReLU and max-pooling."""

    def __init__(self, inputs: int, outputs: int, statistics: Literal["batch", "running"]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(3):
            layers += [
                Conv2d(inputs if i == 0 else outputs, outputs, 3, padding=1, bias=False),
                TaskBatchNorm(outputs, statistics),
                nn.LeakyReLU(0.1),
            ]
        self.residual = nn.Sequential(*layers[:-1])
        self.shortcut = nn.Sequential(
            Conv2d(inputs, outputs, 1, bias=False), TaskBatchNorm(outputs, statistics)
        )
        self.after = nn.Sequential(nn.LeakyReLU(0.1), nn.MaxPool2d(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.residual(x) + self.shortcut(x))


class ResNet12(nn.Module):
    """Four residual blocks (Oreshkin et al. 2018; the widths of Lee et al. 2019).

    [N, C, H, W] -> [N, 10 * width, h, w]. No dropout: a backbone has no key to draw it from.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        width: int,
        statistics: Literal["batch", "running"],
    ) -> None:
        super().__init__()
        channels, height, wide = image_shape
        if min(height, wide) < 16:
            raise ConfigError(
                f"resnet12 halves images four times; {height}x{wide} is too small. "
                "Give --image-size 16 or more."
            )
        widths = [channels, width, int(2.5 * width), 5 * width, 10 * width]
        self.blocks = nn.Sequential(*(ResidualBlock(a, b, statistics) for a, b in pairwise(widths)))
        self.out_shape = (widths[-1], height // 16, wide // 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class ResNet18(nn.Module):
    """torchvision's ResNet-18 (He et al. 2016) without weights and without its classifier.

    [N, C, H, W] -> [N, 512, h, w]. A first layer for another number of channels than 3 is new.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], statistics: Literal["batch", "running"]
    ) -> None:
        super().__init__()
        from torchvision.models import resnet18 as torchvision_resnet18  # costs seconds

        norm = partial(TaskBatchNorm, statistics=statistics)
        network = torchvision_resnet18(norm_layer=norm)
        channels, height, width = image_shape
        sizes = {"kernel_size": 7, "stride": 2, "padding": 3, "bias": False}
        if channels == 3:
            weights = network.conv1.state_dict()
            network.conv1 = nn.utils.skip_init(Conv2d, 3, 64, **sizes)
            network.conv1.load_state_dict(weights)
        else:
            network.conv1 = Conv2d(channels, 64, **sizes)
        self.layers = nn.Sequential(*list(network.children())[:-2])
        for _ in range(5):
            height, width = (height + 1) // 2, (width + 1) // 2
        self.out_shape = (512, height, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def resnet12(
    image_shape: tuple[int, int, int],
    *,
    width: Annotated[int, "channels of the first block; the others have 2.5, 5 and 10 times"] = 64,
    statistics: Statistics = "running",
) -> ResNet12:
    """The residual network that most few-shot papers since 2018 use."""
    return ResNet12(image_shape, width, statistics)


def resnet18(image_shape: tuple[int, int, int], *, statistics: Statistics = "running") -> ResNet18:
    """torchvision's ResNet-18, untrained."""
    return ResNet18(image_shape, statistics)
