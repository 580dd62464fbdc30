"""A network that training leaves as it is."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn


class Frozen(nn.Module):
    """A module whose parameters do not train and that stays in evaluation mode.

    To freeze the parameters alone (``requires_grad_(False)``) leaves a network in training mode
    when the method trains: it is then normalized by the statistics of the batch, and its running
    statistics move. Here they stay, which makes a pretrained network with ``nn.BatchNorm2d`` or
    ``nn.Dropout`` usable as it is.

    Arguments:
        module: from [N, ...] to [N, ...]; its ``out_shape`` is passed on.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.requires_grad_(False)
        self.eval()
        if hasattr(module, "out_shape"):
            self.out_shape: Any = module.out_shape

    def train(self, mode: bool = True) -> Frozen:
        """Evaluation mode, whatever is asked for."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.module(x))
