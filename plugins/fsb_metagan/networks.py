"""Task encoders and conditional generators.

Neither has a normalization layer, so tasks of a batch cannot influence each other here.
An encoder maps support images [N, C, H, W] to codes [N, d] (their mean over the support set is
h_T); a generator maps concat(z, h_T) [N, z_dim + d] to images [N, C, H, W] in the pixel range.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot_bench.nn import SamePad, glorot

Size = Literal["paper", "tutorial", "tutorial-small", "small"]
ImageShape = tuple[int, int, int]
SLOPE = 0.2  # of Leaky-ReLU; the paper does not state one
TUTORIAL_SLOPE = 0.3
NARROW = 8  # "tutorial-small" has the tutorial's layers with an eighth of their channels


def halved(size: int, times: int) -> int:
    """A side length after so many convolutions of stride 2 that round up."""
    for _ in range(times):
        size = (size + 1) // 2
    return size


class ConvEncoder(nn.Module):
    """Convolutions 3x3 with Leaky-ReLU, then a linear layer.

    Arguments:
        image_shape: (C, H, W).
        layers: (channels, stride) of each convolution.
        out_features: d.
        slope: of the Leaky-ReLU.
        tensorflow: asymmetric padding at stride 2.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        layers: Sequence[tuple[int, int]],
        out_features: int,
        slope: float = SLOPE,
        tensorflow: bool = False,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        body: list[nn.Module] = []
        for outputs, stride in layers:
            if tensorflow and stride == 2:
                body += [SamePad(), nn.Conv2d(channels, outputs, 3, stride)]
            else:
                body += [nn.Conv2d(channels, outputs, 3, stride, padding=1)]
            body += [nn.LeakyReLU(slope)]
            channels = outputs
        times = sum(stride == 2 for _, stride in layers)
        self.body = nn.Sequential(*body, nn.Flatten())
        self.out = nn.Linear(channels * halved(height, times) * halved(width, times), out_features)
        self.out_features = out_features
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.out(self.body(x)), self.slope)


class ResidualUp(nn.Module):
    """Upsample to a size, then two 3x3 convolutions beside a 1x1 shortcut."""

    def __init__(self, inputs: int, outputs: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(F.leaky_relu(x, SLOPE), self.size)
        inside = F.leaky_relu(self.first(x), SLOPE)
        return self.shortcut(x) + self.second(inside)


class PlainUp(nn.Module):
    """Upsample to a size, then one convolution."""

    def __init__(
        self, inputs: int, outputs: int, size: tuple[int, int], kernel: int, slope: float
    ) -> None:
        super().__init__()
        self.size, self.slope = size, slope
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(x, self.slope)
        if x.shape[-2:] != self.size:
            x = F.interpolate(x, self.size)
        return self.conv(x)


class Generator(nn.Module):
    """A linear layer to the smallest map, upsampling blocks, and tanh scaled to the pixel range.

    Arguments:
        in_features: of concat(z, h_T).
        channels: of the smallest map.
        start: (h, w) of the smallest map.
        blocks: the last gives as many channels as an image has, in its size.
        pixel_range: what -1 and 1 become.
    """

    def __init__(
        self,
        in_features: int,
        channels: int,
        start: tuple[int, int],
        blocks: Sequence[nn.Module],
        pixel_range: tuple[float, float],
    ) -> None:
        super().__init__()
        self.start = (channels, *start)
        self.input = nn.Linear(in_features, channels * start[0] * start[1])
        self.blocks = nn.Sequential(*blocks)
        low, high = pixel_range
        self.middle, self.radius = (low + high) / 2, (high - low) / 2

    def forward(self, code: Tensor) -> Tensor:
        image = self.blocks(self.input(code).unflatten(1, self.start))
        return self.middle + self.radius * torch.tanh(image)


def sizes(image_shape: ImageShape, times: int) -> list[tuple[int, int]]:
    """From the smallest map to the image, e.g. 7, 14, 28 for two upsamplings of 28."""
    _, height, width = image_shape
    return [(halved(height, n), halved(width, n)) for n in range(times, -1, -1)]


def make_encoder(name: Size, image_shape: ImageShape) -> ConvEncoder:
    """The task encoder of that name, before dropout and the mean over the support set."""
    if name == "small":
        return ConvEncoder(image_shape, ((16, 2), (32, 2), (32, 2)), 64)
    narrow = NARROW if name == "tutorial-small" else 1
    layers = [(c // narrow, stride) for c in (64, 128, 256) for stride in (1, 2)]
    if name == "paper":
        return ConvEncoder(image_shape, layers, 256)
    encoder = ConvEncoder(image_shape, layers, 256, TUTORIAL_SLOPE, tensorflow=True)
    return glorot(encoder)


def make_generator(
    name: Size, in_features: int, image_shape: ImageShape, pixel_range: tuple[float, float]
) -> Generator:
    """The generator of that name: images of ``image_shape`` from concat(z, h_T)."""
    colors = image_shape[0]
    if name == "paper":
        maps = sizes(image_shape, 4)
        channels = (512, 512, 256, 128, colors)
        blocks: list[nn.Module] = [
            ResidualUp(a, b, size)
            for (a, b), size in zip(pairwise(channels), maps[1:], strict=True)
        ]
        return Generator(in_features, channels[0], maps[0], blocks, pixel_range)
    maps = sizes(image_shape, 2)
    if name == "small":
        blocks = [PlainUp(32, 16, maps[1], 3, SLOPE), PlainUp(16, colors, maps[2], 3, SLOPE)]
        return Generator(in_features, 32, maps[0], blocks, pixel_range)
    widths = [c // (NARROW if name == "tutorial-small" else 1) for c in (256, 128, 64)]
    blocks = [
        PlainUp(a, b, size, 5, TUTORIAL_SLOPE)
        for (a, b), size in zip(pairwise((*widths, colors)), maps, strict=True)
    ]
    return glorot(Generator(in_features, widths[0], maps[0], blocks, pixel_range))
