"""Relation networks.

Sung, Yang, Zhang, Xiang, Torr and Hospedales, "Learning to Compare: Relation Network for Few-Shot
Learning", CVPR 2018. Nothing is adapted to a task: a second network is trained to compare an image
with the examples of a class.

Symbols as in the paper: ``f`` the embedding module, ``g`` the relation module, ``C`` concatenation
in depth, ``r_ij`` the relation of query j with class i.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam

from fewshot_bench import Episode, Losses, Method, Player, Support, Task
from fewshot_bench.errors import ConfigError
from fewshot_bench.method import accuracy, cross_entropy, halving, trainable
from fewshot_bench.nn import Conv2d, TaskBatchNorm, per_task, uses_batch_statistics
from fsb_relationnet.presets import PRESETS

PADDED_BELOW = 10  # two unpadded convolutions and poolings would leave nothing of such a side


class RelationModule(nn.Module):
    """g: two blocks of [3x3 convolution, batch norm, ReLU, 2x2 max-pool] and two linear layers.

    As in the paper (section 4.1), 64 maps of 5x5 become H = 64 features, and 64 maps of 19x19
    become H = 576, because convolutions of small maps alone are padded.

    Arguments:
        maps: (c, h, w) of the embedding.
        hidden: outputs of the first linear layer.
        statistics: see :class:`fewshot_bench.nn.TaskBatchNorm`.
    """

    def __init__(
        self, maps: tuple[int, int, int], hidden: int, statistics: Literal["batch", "running"]
    ) -> None:
        super().__init__()
        channels, *sides = maps
        self.padding = int(min(sides) < PADDED_BELOW)
        self.first = nn.Conv2d(2 * channels, channels, 3, padding=self.padding)
        second = Conv2d(channels, channels, 3, padding=self.padding)
        blocks: list[nn.Module] = []
        for convolution in (None, second):
            sides = [side - 2 + 2 * self.padding for side in sides]
            pool = nn.MaxPool2d(2) if min(sides) > 1 else nn.Identity()
            sides = [side // 2 if min(sides) > 1 else side for side in sides]
            blocks += [] if convolution is None else [convolution]
            # ReLU and max-pooling commute; behind the pooling ReLU has a quarter of the work.
            blocks += [TaskBatchNorm(channels, statistics), pool, nn.ReLU()]
        self.rest = nn.Sequential(
            *blocks,
            nn.Flatten(),
            nn.Linear(channels * sides[0] * sides[1], hidden),
            nn.ReLU(),
            nn.Linear(hidden, 1),
        )

    def forward(self, classes: Tensor, queries: Tensor) -> Tensor:
        """g(C(f(x_i), f(x_j))) before its sigmoid.

        The first convolution is linear: that of a concatenation is the sum of one over the class
        and one over the query, and a pair costs an addition in place of a convolution.

        Arguments:
            classes: [T, way, c, h, w].
            queries: [T, Q, c, h, w].

        Returns:
            [T, Q, way].
        """
        tasks, way = classes.shape[:2]
        of_class, of_query = self.first.weight.chunk(2, dim=1)
        left = F.conv2d(classes.flatten(0, 1), of_class, self.first.bias, padding=self.padding)
        right = F.conv2d(queries.flatten(0, 1), of_query, padding=self.padding)
        pairs = left.unflatten(0, (tasks, 1, way)) + right.unflatten(0, (tasks, -1, 1))
        return per_task(self.rest, pairs.flatten(1, 2)).squeeze(-1).unflatten(1, (-1, way))


class RelationNet(Method):
    """Relation network (Sung et al. 2018).

    ``predict`` gives relations before their sigmoid, which changes no order. The relation module
    normalizes by the statistics that the backbone uses (``--backbone-statistics``).

    Raises:
        ConfigError: a number out of range.
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
        loss: Annotated[
            Literal["squared_error", "cross_entropy"],
            "of the sigmoid of a relation to 1 or 0 (eq. 2), or of the softmax over relations",
        ] = "squared_error",
        hidden: Annotated[int, "outputs of the relation module's first linear layer"] = 8,
        lr: Annotated[float, "Adam's rate"] = 1e-3,
        halve_every: Annotated[int, "halve the rate after so many steps; 0: never"] = 100_000,
        clip: Annotated[float | None, "largest norm of the gradient"] = 0.5,
    ) -> None:
        super().__init__(task, backbone)
        if hidden < 1:
            raise ConfigError(f"--hidden: expected an integer >= 1, got {hidden}.")
        if clip is not None and clip <= 0:
            raise ConfigError(f"--clip: expected a number > 0 or none (no limit), got {clip}.")
        statistics: Literal["batch", "running"]
        statistics = "batch" if uses_batch_statistics(backbone) else "running"
        self.relate = RelationModule(backbone.out_shape, hidden, statistics)  # type: ignore[arg-type]
        self.loss, self.lr, self.halve_every, self.clip = loss, lr, halve_every, clip

    def embed(self, images: Tensor) -> Tensor:
        """f: images [T, M, C, H, W] -> maps [T, M, c, h, w]."""
        return per_task(self.backbone, images)

    def adapt(self, support: Support) -> Tensor:
        """The sum of each class's maps (section 3.2, K-shot): [T, way, c, h, w]."""
        images, _ = support.labeled()
        return self.embedded(images).unflatten(1, support.images.shape[1:3]).sum(2)

    def relations(self, classes: Tensor, maps: Tensor) -> Tensor:
        """Eq. 1 before the sigmoid, of maps [T, M, c, h, w]: [T, M, way], in full precision."""
        r: Tensor = self.relate(classes, maps)
        return r.to(torch.promote_types(r.dtype, torch.float32))

    def predict(self, state: Tensor, query: Tensor) -> Tensor:
        return self.relations(state, self.embedded(query))

    def losses(self, episode: Episode) -> Losses:
        """Eq. 2, as a mean over queries and classes; or the cross-entropy."""
        r = self.predict(self.adapt(episode.support), episode.query)
        if self.loss == "cross_entropy":
            loss = cross_entropy(r, episode.target)
        else:
            # F.one_hot reads the largest number, which waits for the device.
            classes = torch.arange(r.shape[-1], device=r.device)
            match = (episode.target.unsqueeze(-1) == classes).to(r.dtype)
            loss = (r.sigmoid() - match).square().mean((1, 2))
        return Losses({"meta": loss}, {"accuracy": accuracy(r, episode.target)})

    def players(self) -> dict[str, Player]:
        adam, schedule = partial(Adam, lr=self.lr), halving(self.halve_every)
        return {"meta": Player(trainable(self), adam, schedule=schedule, clip=self.clip)}
