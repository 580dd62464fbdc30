"""Prototypical networks.

Snell, Swersky and Zemel, "Prototypical Networks for Few-shot Learning", NeurIPS 2017. An image is
classified by the class mean that is nearest to it in a learned space.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.optim import Adam

from fewshot_bench import Method, Player, Support, Task
from fewshot_bench.method import halving, trainable
from fewshot_bench.nn import per_task
from fsb_protonet.presets import PRESETS


class ProtoNet(Method):
    """Prototypical network (Snell et al. 2017).

    Trained as in the paper by the query cross-entropy of its softmax over negative squared
    Euclidean distances; usually on more classes at a time than it is tested on (``--train-way``).
    """

    class_equivariant = True
    capturable = True
    autocast = True
    embeds = True
    presets = PRESETS

    def __init__(
        self,
        task: Task,
        backbone: nn.Module,
        *,
        lr: Annotated[float, "Adam's rate"] = 1e-3,
        halve_every: Annotated[int, "halve the rate after so many steps; 0: never"] = 2000,
    ) -> None:
        super().__init__(task, backbone)
        self.lr, self.halve_every = lr, halve_every

    def embed(self, images: Tensor) -> Tensor:
        """f_phi: images [T, M, C, H, W] -> embeddings [T, M, d], in full precision."""
        f = per_task(self.backbone, images).flatten(2)
        return f.to(torch.promote_types(f.dtype, torch.float32))

    def adapt(self, support: Support) -> Tensor:
        """Eq. 1: c_k, the mean embedding of each class: [T, way, d]."""
        images, _ = support.labeled()
        return self.embedded(images).unflatten(1, support.images.shape[1:3]).mean(2)

    def predict(self, state: Tensor, query: Tensor) -> Tensor:
        """Eq. 2: logits -d(f_phi(x), c_k), d the squared Euclidean distance."""
        return -self.distances(self.embedded(query), state)

    @staticmethod
    def distances(f: Tensor, c: Tensor) -> Tensor:
        """d of embeddings [T, M, d] and prototypes [T, way, d]: [T, M, way]."""
        return (f.unsqueeze(2) - c.unsqueeze(1)).square().sum(-1)

    def players(self) -> dict[str, Player]:
        adam, schedule = partial(Adam, lr=self.lr), halving(self.halve_every)
        return {"meta": Player(trainable(self), adam, schedule=schedule)}
