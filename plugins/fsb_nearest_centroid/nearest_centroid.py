"""Nearest class mean on pixels: the baseline that every trained method has to beat."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot_bench import Method, Support


class NearestCentroid(Method):
    """Squared Euclidean distance of pixels to the mean image of each class. Nothing is trained."""

    wants_backbone = False
    class_equivariant = True
    capturable = True
    autocast = True

    def adapt(self, support: Support) -> Tensor:
        """Class means [T, way, C*H*W]."""
        return support.images.flatten(3).mean(2)

    def predict(self, state: Tensor, query: Tensor) -> Tensor:
        return -torch.cdist(query.flatten(2), state).square()
