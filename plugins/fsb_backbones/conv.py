"""The three four-layer convolutional networks of the few-shot literature.

All have four blocks of [3x3 convolution, batch normalization, ReLU]. ``conv4`` halves the image by
max-pooling behind each block (Vinyals et al. 2016; Snell et al. 2017); ``conv4-strided`` by
convolutions of stride 2 (Finn et al. 2017, Omniglot); ``conv4-relation`` by max-pooling behind the
first two blocks, which leaves maps for a relation module (Sung et al. 2018). Weights start as
PyTorch's layers do, or as Keras' where that is asked for.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from fewshot_bench.errors import ConfigError
from fewshot_bench.nn import NORM_EPSILON, Conv2d, SamePad, TaskBatchNorm, glorot

Channels = Annotated[int, "feature maps of each layer"]
Statistics = Annotated[
    Literal["batch", "running"],
    "batch normalization at test by the statistics of the batch (transductive) or running ones",
]
Framework = Annotated[
    Literal["torch", "keras"],
    "whose defaults it has: padding at stride 2, epsilon of batch normalization, first weights",
]


class Conv4(nn.Module):
    """Four convolutional blocks: [N, C, H, W] -> [N, channels, h, w].

    Arguments:
        image_shape: (C, H, W).
        channels: of every block.
        statistics: see :class:`fewshot_bench.nn.TaskBatchNorm`.
        stride: 2: convolutions halve the image; 1: max-pooling does.
        pools: blocks that max-pool, with stride 1.
        unpadded: blocks whose convolutions have no padding.
        keras: the defaults of that framework, for a network of stride 2.

    Raises:
        ConfigError: an image that the halvings leave nothing of.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        channels: int,
        statistics: Literal["batch", "running"],
        stride: Literal[1, 2],
        pools: int = 4,
        unpadded: int = 0,
        keras: bool = False,
    ) -> None:
        super().__init__()
        before, *sides = image_shape
        own = {"eps": NORM_EPSILON} if keras else {}
        blocks = []
        for i in range(4):
            padding, pool = int(i >= unpadded), stride == 1 and i < pools
            block: list[nn.Module] = [SamePad()] if keras else []
            block += [
                Conv2d(before, channels, 3, stride=stride, padding=0 if keras else padding),
                TaskBatchNorm(channels, statistics, **own),
            ]
            # ReLU and max-pooling commute; behind the pooling ReLU has a quarter of the work.
            block += [nn.MaxPool2d(2), nn.ReLU()] if pool else [nn.ReLU()]
            blocks.append(nn.Sequential(*block))
            sides = [(n + 2 * padding - 3) // stride + 1 for n in sides]
            sides = [n // 2 if pool else n for n in sides]
            before = channels
        if min(sides) < 1:
            raise ConfigError(
                f"conv4 shrinks images four times; {image_shape[1]}x{image_shape[2]} is too small. "
                "Give --image-size 16 or more."
            )
        self.blocks = nn.Sequential(*blocks)
        if keras:
            glorot(self.blocks)
        self.stride = stride
        self.out_shape = (channels, *sides)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(channels_last(x) if self.stride == 1 else x)


def channels_last(x: Tensor) -> Tensor:
    """The same images, laid out so that convolutions and max-pooling are fast on a CPU.

    Max-pooling is several times faster so. The small maps of strided networks would gain a fifth by
    it and lose as much by their normalization, which is accurate at once if they are contiguous.
    ``contiguous`` leaves images of one channel as they are, because both layouts are the same
    bytes; what follows goes by the strides, though.
    """
    n, c, h, w = x.shape
    if c > 1:
        return x.contiguous(memory_format=torch.channels_last)
    return x.contiguous().view(n, h, w, c).permute(0, 3, 1, 2)


def conv4(
    image_shape: tuple[int, int, int],
    *,
    channels: Channels = 64,
    statistics: Statistics = "running",
) -> Conv4:
    """The max-pool network of ProtoNet."""
    return Conv4(image_shape, channels, statistics, stride=1)


def conv4_strided(
    image_shape: tuple[int, int, int],
    *,
    channels: Channels = 64,
    statistics: Statistics = "batch",
    framework: Framework = "torch",
) -> Conv4:
    """The strided network of MAML; whether its maps are averaged is up to the method."""
    return Conv4(image_shape, channels, statistics, stride=2, keras=framework == "keras")


def conv4_relation(
    image_shape: tuple[int, int, int],
    *,
    channels: Channels = 64,
    statistics: Statistics = "running",
) -> Conv4:
    """The embedding module of Relation Networks: 64 maps of 5x5 of an Omniglot image."""
    return Conv4(image_shape, channels, statistics, stride=1, pools=2, unpadded=2)
