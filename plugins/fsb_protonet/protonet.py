"""Prototypical networks.

Snell, Swersky and Zemel, "Prototypical Networks for Few-shot Learning", NeurIPS 2017. An image is
classified by the class mean that is nearest to it in a learned space.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.optim import Adam

from fewshot_bench.engine.schedules import halving
from fewshot_bench.episode import Support, Task
from fewshot_bench.method import Method, Player, trainable
from fewshot_bench.nn import per_task


class ProtoNet(Method):
    """Prototypical network (Snell et al. 2017).

    Trained as the paper does with the query cross-entropy of its softmax over negative squared
    Euclidean distances; usually on more classes at a time than it is tested on (``--train-way``).

    It can serve as the base of a method that tells real from fake by its logits (``fsb_metagan``):
    those of distances have no zero point, which ``become_discriminator`` mends.
    """

    class_equivariant = True
    capturable = True
    autocast = True
    embeds = True

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
        self.fake: nn.Linear | None = None

    def embed(self, images: Tensor) -> Tensor:
        """f_phi: images [T, M, C, H, W] -> embeddings [T, M, d]; distances want full precision."""
        assert self.backbone is not None
        f = per_task(self.backbone, images).flatten(2)
        return f.to(torch.promote_types(f.dtype, torch.float32))

    def adapt(self, support: Support, inner_loss: object = None) -> Tensor:
        """Eq. 1: c_k, the mean embedding of each class: [T, way, d].

        There is no inner loop, and so nothing to do with an inner loss.
        """
        assert support.images is not None
        images, _ = support.labeled()
        return self.embed(images).unflatten(1, support.images.shape[1:3]).mean(2)

    def predict(self, state: Tensor, query: Tensor) -> Tensor:
        """Eq. 2: logits -d(f_phi(x), c_k), d the squared Euclidean distance."""
        return -distances(self.embed(query), state)

    def become_discriminator(self, outputs: int) -> None:
        """Learn where distances turn from real to fake, and how sharply.

        logsumexp(-d) of raw distances is so negative that everything is fake. Logits become
        s (m - d), with a learned scale s, at first 1, which is eq. 2's softmax, and a learned
        threshold m for the mean over the features of a squared difference, at first 0.5, about
        what an untrained network has between classes. A further output is linear in f_phi(x).
        """
        assert self.backbone is not None
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.threshold = nn.Parameter(torch.full((), 0.5))
        if outputs:
            self.fake = nn.Linear(math.prod(self.backbone.out_shape), outputs)  # type: ignore[arg-type]

    def discriminate(self, state: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """After ``become_discriminator``: logits [T, M, way + outputs] and f_phi [T, M, d]."""
        f = self.embed(images)
        m = self.threshold * f.shape[-1]
        logits = self.log_scale.exp() * (m - distances(f, state))
        if self.fake is not None:
            logits = torch.cat([logits, self.fake(f)], dim=-1)
        return logits, f

    def players(self) -> dict[str, Player]:
        return {
            "meta": Player(
                trainable(self), partial(Adam, lr=self.lr), schedule=halving(self.halve_every)
            )
        }

    @classmethod
    def preset_names(cls) -> Sequence[str]:
        return ("quick", "paper")

    @classmethod
    def presets(cls, name: str, dataset: str, task: Task) -> Mapping[str, Any] | None:
        if name == "quick":
            return quick(dataset, task)
        return paper(dataset, task) if name == "paper" else None


def distances(f: Tensor, c: Tensor) -> Tensor:
    """Squared Euclidean ones of embeddings [T, M, d] and prototypes [T, way, d]: [T, M, way]."""
    return (f.unsqueeze(2) - c.unsqueeze(1)).square().sum(-1)


CHARACTERS = ("omniglot", "glyphs")  # small pictures of many classes


def quick(dataset: str, task: Task) -> dict[str, Any]:
    """Minutes on two CPU cores. Not the paper's schedule."""
    if dataset in CHARACTERS:
        return {
            "backbone": "conv4",
            "train_way": 20,
            "train_query": 5,
            "task_batch": 2,  # one for each core
            "steps": 800,
            "halve_every": 250,
            "validate_every": 200,
            "validation_episodes": 200,
        }
    # An 84x84 picture costs ten times a character, and there may be few classes to train on.
    return {
        "backbone": "conv4",
        "train_way": task.way,
        "train_query": 5,
        "task_batch": 2,
        "steps": 300,
        "halve_every": 100,
        "validate_every": 100,
        "validation_episodes": 50,
    }


def paper(dataset: str, task: Task) -> dict[str, Any]:
    """Snell et al. 2017, sections 3.1 (Omniglot) and 3.2 (Mini-ImageNet)."""
    omniglot = dataset in CHARACTERS
    many = 20 if task.shot > 1 else 30
    data = {"split": "vinyals"} if dataset == "omniglot" else {}
    return data | {
        "backbone": "conv4",
        "backbone_statistics": "running",
        "train_way": 60 if omniglot else many,
        "train_query": 5 if omniglot else 15,
        "task_batch": 1,
        "steps": 20_000,
        "lr": 1e-3,
        "halve_every": 2000,
        "validate_every": 1000,
        "validation_episodes": 600,
        "episodes": 1000 if omniglot else 600,
    }
