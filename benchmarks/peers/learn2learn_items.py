"""learn2learn: MAML, ProtoNet and a task data set.

Follows the project's examples ``maml_omniglot.py`` and ``protonet_miniimagenet.py`` and its
documentation of ``Taskset``.
"""

from __future__ import annotations

from collections.abc import Callable

import learn2learn as l2l
import torch
from common import (
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
    StridedNet,
    endless,
    evaluation,
    fastest,
    loss,
    meta_training,
    pooled_net,
    protonet_training,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

IMAGES_EACH = FIVE_WAY.shot + FIVE_WAY.query


def prepare(item: str, bench: Bench) -> Step:
    """The step of an item; NotOffered where learn2learn has nothing for it."""
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
    raise NotOffered(f"learn2learn has nothing for {item}")


def _adapt(learner: l2l.algorithms.MAML, episode: Episode, inner_steps: int) -> None:
    for _ in range(inner_steps):
        learner.adapt(loss(learner(episode.support), episode.support_labels))


def _maml_training(bench: Bench, item: Maml) -> Step:
    """``MAML.clone()`` and ``adapt()`` for each task, as in the example."""
    network = StridedNet(item.shape.way).to(bench.device)
    maml = l2l.algorithms.MAML(network, lr=INNER_RATE, first_order=item.first_order)

    def backward(episode: Episode) -> None:
        learner = maml.clone()
        _adapt(learner, episode, item.inner_steps)
        loss(learner(episode.query), episode.query_labels).backward()

    return meta_training(bench, item, maml, backward)


def _maml_evaluation(bench: Bench) -> Step:
    """First-order adaptation: the weights are the same, and no second derivative is kept."""
    network = StridedNet(FIVE_WAY.way).to(bench.device)
    maml = l2l.algorithms.MAML(network, lr=INNER_RATE, first_order=True)

    def logits_of(episode: Episode) -> Tensor:
        learner = maml.clone()
        _adapt(learner, episode, INNER_STEPS)
        with torch.no_grad():
            return learner(episode.query)

    return evaluation(bench, logits_of)


def _logits(network: nn.Module, episode: Episode, shape: Shape) -> Tensor:
    """Support and query in one pass, as in the example, and the library's distance."""
    supports = len(episode.support)
    embedded = network(torch.cat([episode.support, episode.query]))
    prototypes = embedded[:supports].reshape(shape.way, shape.shot, -1).mean(1)
    return -l2l.nn.PrototypicalClassifier.euclidean_distance(prototypes, embedded[supports:])


def _protonet_training(bench: Bench, shape: Shape) -> Step:
    network = pooled_net().to(bench.device)

    def loss_of(episode: Episode) -> Tensor:
        return loss(_logits(network, episode, shape), episode.query_labels)

    return protonet_training(bench, shape, network, loss_of)


def _protonet_evaluation(bench: Bench, running_statistics: bool) -> Step:
    network = pooled_net(running_statistics).to(bench.device).eval()

    @torch.no_grad()
    def logits_of(episode: Episode) -> Tensor:
        return _logits(network, episode, FIVE_WAY)

    return evaluation(bench, logits_of)


def _taskset(bench: Bench, number: int) -> l2l.data.Taskset:
    """5-way tasks of 20 images a class, of images that are floats in memory already."""
    classes, images = bench.train.shape[:2]
    labels = torch.arange(classes).repeat_interleave(images)
    dataset = l2l.data.MetaDataset(TensorDataset(bench.train.flatten(0, 1), labels))
    transforms = [
        l2l.data.transforms.FusedNWaysKShots(dataset, n=FIVE_WAY.way, k=IMAGES_EACH),
        l2l.data.transforms.LoadData(dataset),
        l2l.data.transforms.RemapLabels(dataset),
        l2l.data.transforms.ConsecutiveLabels(dataset),
    ]
    return l2l.data.Taskset(dataset, task_transforms=transforms, num_tasks=number)


def _episodes(bench: Bench) -> Step:
    """``Taskset``, sampled in the process or by a DataLoader with two workers: the faster one.

    The images come class by class, so that support and query are one gather each.
    """
    is_support = torch.arange(FIVE_WAY.way * IMAGES_EACH) % IMAGES_EACH < FIVE_WAY.shot

    def delivery(next_task: Callable[[], tuple[Tensor, Tensor]]) -> Step:
        def step() -> int:
            data, labels = next_task()
            Episode(data[is_support], labels[is_support], data[~is_support], labels[~is_support])
            return 1

        return step

    def with_workers() -> Step:
        tasks = _taskset(bench, number=100_000)
        loader = endless(DataLoader(tasks, batch_size=None, shuffle=True, num_workers=2))
        return delivery(lambda: next(loader))

    def in_process() -> Step:
        return delivery(_taskset(bench, number=-1).sample)

    return fastest(bench, {"in the process": in_process, "2 workers": with_workers})
