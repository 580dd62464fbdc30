"""Class means in the space of a backbone: the honest method that the liars are made from."""

from __future__ import annotations

from typing import Any

from fewshot_bench.method import Method
from fewshot_bench.nn import per_task


class Means(Method):
    """Nearest class mean, by squared distances."""

    def embed(self, images: Any) -> Any:
        """Features [T, M, d] of images [T, M, C, H, W]."""
        return per_task(self.backbone, images).flatten(2)

    def adapt(self, support: Any) -> Any:
        """Class means [T, way, d]."""
        features = self.embed(support.labeled()[0])
        return features.unflatten(1, support.images.shape[1:3]).mean(2)

    def predict(self, state: Any, query: Any) -> Any:
        """Logits [T, Q, way]."""
        return -(self.embed(query).unsqueeze(2) - state.unsqueeze(1)).square().sum(-1)
