"""What layers of Keras have by default, for methods whose source is written in TensorFlow."""

from __future__ import annotations

from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPSILON = 1e-3  # of batch normalization
M = TypeVar("M", bound=nn.Module)


class SamePad(nn.Module):
    """Padding for a 3x3 convolution of stride 2 that gives ceil(size / 2): all of an even size's
    padding is behind (28 -> 14 has one row at the bottom, none at the top), as "same" has it.
    """

    def forward(self, x: Tensor) -> Tensor:
        top, left = (side % 2 for side in x.shape[-2:])
        return F.pad(x, (left, 1, top, 1))


def glorot(module: M) -> M:
    """Glorot-uniform weights and zero biases in every convolution and linear layer."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module
