"""torchmeta: modules that take their weights, MAML and ProtoNet functions, and a task loader.

Follows the project's examples ``maml`` and ``protonet`` and its data set of Omniglot.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Any

import shims
import torch
from common import (
    CHANNELS,
    EVALUATION_ITEMS,
    FIVE_WAY,
    INNER_RATE,
    INNER_STEPS,
    MAML_ITEMS,
    PROTONET_ITEMS,
    Bench,
    Episode,
    Maml,
    NotOffered,
    Shape,
    Step,
    endless,
    evaluation,
    fastest,
    loss,
    meta_training,
    pooled_net,
    protonet_training,
)
from torch import Tensor, nn
from torchmeta.modules import MetaBatchNorm2d, MetaConv2d, MetaLinear, MetaModule, MetaSequential
from torchmeta.transforms import Categorical, ClassSplitter
from torchmeta.utils.data import (
    BatchMetaDataLoader,
    ClassDataset,
    CombinationMetaDataset,
    Dataset,
)
from torchmeta.utils.gradient_based import gradient_update_parameters
from torchmeta.utils.prototype import get_prototypes, prototypical_loss

TASKS_A_BATCH = 16  # of the loader, the default of the examples


def prepare(item: str, bench: Bench) -> Step:
    """The step of an item; NotOffered where torchmeta has nothing for it."""
    if item in MAML_ITEMS:
        return _maml_training(bench, MAML_ITEMS[item])
    if item == "W4_maml":
        return _maml_evaluation(bench)
    if item in PROTONET_ITEMS:
        return _protonet_training(bench, PROTONET_ITEMS[item])
    if item in EVALUATION_ITEMS:
        return _protonet_evaluation(bench, EVALUATION_ITEMS[item])
    if item == "W3":
        return _episodes(bench)
    raise NotOffered(f"torchmeta has nothing for {item}")


class MetaStridedNet(MetaModule):
    """``common.StridedNet`` of torchmeta's modules, whose forward takes the weights."""

    def __init__(self, way: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (1, CHANNELS, CHANNELS, CHANNELS):
            layers += [
                MetaConv2d(channels, CHANNELS, 3, stride=2, padding=1),
                MetaBatchNorm2d(CHANNELS, track_running_stats=False),
                nn.ReLU(),
            ]
        self.body = MetaSequential(*layers)
        self.head = MetaLinear(CHANNELS, way)

    def forward(self, images: Tensor, params: Any = None) -> Tensor:
        maps = self.body(images, params=self.get_subdict(params, "body"))
        return self.head(maps.mean((2, 3)), params=self.get_subdict(params, "head"))


def _adapt(
    network: MetaStridedNet, episode: Episode, inner_steps: int, first_order: bool
) -> OrderedDict[str, Tensor] | None:
    weights = None
    for _ in range(inner_steps):
        support_loss = loss(network(episode.support, params=weights), episode.support_labels)
        weights = gradient_update_parameters(
            network, support_loss, params=weights, step_size=INNER_RATE, first_order=first_order
        )
    return weights


def _maml_training(bench: Bench, item: Maml) -> Step:
    network = MetaStridedNet(item.shape.way).to(bench.device)

    def backward(episode: Episode) -> None:
        weights = _adapt(network, episode, item.inner_steps, item.first_order)
        loss(network(episode.query, params=weights), episode.query_labels).backward()

    return meta_training(bench, item, network, backward)


def _maml_evaluation(bench: Bench) -> Step:
    network = MetaStridedNet(FIVE_WAY.way).to(bench.device)

    def logits_of(episode: Episode) -> Tensor:
        weights = _adapt(network, episode, INNER_STEPS, first_order=True)
        with torch.no_grad():
            return network(episode.query, params=weights)

    return evaluation(bench, logits_of)


def _protonet_training(bench: Bench, shape: Shape) -> Step:
    """``get_prototypes`` and ``prototypical_loss``, which work on a batch: here of one task."""
    network = pooled_net().to(bench.device)

    def loss_of(episode: Episode) -> Tensor:
        support, query = network(episode.support)[None], network(episode.query)[None]
        prototypes = get_prototypes(support, episode.support_labels[None], shape.way)
        return prototypical_loss(prototypes, query, episode.query_labels[None])

    return protonet_training(bench, shape, network, loss_of)


def _protonet_evaluation(bench: Bench, running_statistics: bool) -> Step:
    """Prototypes are torchmeta's; it leaves the distance of an evaluation to its examples."""
    network = pooled_net(running_statistics).to(bench.device).eval()

    @torch.no_grad()
    def logits_of(episode: Episode) -> Tensor:
        support = network(episode.support)[None]
        prototypes = get_prototypes(support, episode.support_labels[None], FIVE_WAY.way)[0]
        return -(network(episode.query)[:, None] - prototypes).pow(2).sum(-1)

    return evaluation(bench, logits_of)


class Character(Dataset):
    """The images of one class, floats in memory: [20, 1, 28, 28]."""

    def __init__(self, index: int, images: Tensor, target_transform: Any) -> None:
        super().__init__(index, target_transform=target_transform)
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        return self.images[index], self.target_transform(self.index)


class Characters(ClassDataset):
    """All classes, as torchmeta's own Omniglot has them, without its files and its PIL images."""

    def __init__(self, images: Tensor) -> None:
        super().__init__(meta_train=True)
        self.images = images

    @property
    def num_classes(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Character:
        return Character(index, self.images[index], self.get_target_transform(index))


def _episodes(bench: Bench) -> Step:
    """``BatchMetaDataLoader``, with no workers or with two, whichever is faster."""
    shims.complete_torchmeta()
    splitter = ClassSplitter(
        shuffle=True, num_train_per_class=FIVE_WAY.shot, num_test_per_class=FIVE_WAY.query
    )
    dataset = CombinationMetaDataset(
        Characters(bench.train),
        num_classes_per_task=FIVE_WAY.way,
        target_transform=Categorical(FIVE_WAY.way),
        dataset_transform=splitter,
    )

    def delivery(workers: int) -> Step:
        loader = BatchMetaDataLoader(dataset, batch_size=TASKS_A_BATCH, num_workers=workers)
        batches = endless(loader)

        def step() -> int:
            batch = next(batches)
            support, query = batch["train"], batch["test"]
            for tensor in (*support, *query):
                tensor.to(bench.device)
            return len(support[0])

        return step

    return fastest(bench, {f"{n} workers": partial(delivery, n) for n in (0, 2)})
