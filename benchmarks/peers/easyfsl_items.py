"""easyfsl (easy-few-shot-learning): prototypical networks, a task sampler, evaluation on features.

Follows the project's notebooks on episodic training and on inference with extracted embeddings.
Its scores are minus the distance, not minus its square: its own choice, and left to it.
"""

from __future__ import annotations

from functools import partial

import torch
from common import (
    EVALUATION_ITEMS,
    FIVE_WAY,
    PROTONET_ITEMS,
    Bench,
    Episode,
    NotOffered,
    Shape,
    Step,
    endless,
    evaluation,
    fastest,
    loss,
    pooled_net,
    protonet_training,
)
from easyfsl.datasets import FeaturesDataset
from easyfsl.methods import PrototypicalNetworks
from easyfsl.samplers import TaskSampler
from easyfsl.utils import evaluate, predict_embeddings
from torch import Tensor
from torch.utils.data import DataLoader

TASKS = 10_000  # of an evaluation on features
IMAGES_A_BATCH = 256  # while features are extracted


def prepare(item: str, bench: Bench) -> Step:
    """The step of an item; NotOffered where easyfsl has nothing for it."""
    if item in PROTONET_ITEMS:
        return _protonet_training(bench, PROTONET_ITEMS[item])
    if item == "W4_protonet_running_statistics":
        return _evaluation_on_features(bench)
    if item in EVALUATION_ITEMS:
        return _protonet_evaluation(bench, EVALUATION_ITEMS[item])
    if item == "W3":
        return _episodes(bench)
    raise NotOffered("easyfsl has no MAML")


def _protonet_training(bench: Bench, shape: Shape) -> Step:
    network = PrototypicalNetworks(pooled_net()).to(bench.device)

    def loss_of(episode: Episode) -> Tensor:
        network.process_support_set(episode.support, episode.support_labels)
        return loss(network(episode.query), episode.query_labels)

    return protonet_training(bench, shape, network, loss_of)


def _protonet_evaluation(bench: Bench, running_statistics: bool) -> Step:
    network = PrototypicalNetworks(pooled_net(running_statistics)).to(bench.device).eval()

    @torch.no_grad()
    def logits_of(episode: Episode) -> Tensor:
        network.process_support_set(episode.support, episode.support_labels)
        return network(episode.query)

    return evaluation(bench, logits_of)


def _dataset(images: Tensor) -> FeaturesDataset:
    """Images [classes, images, ...] in easyfsl's class for tensors in memory."""
    names = [str(label) for label in range(len(images))]
    labels = torch.arange(len(images)).repeat_interleave(images.shape[1]).tolist()
    return FeaturesDataset(labels, images.flatten(0, 1), names)


def _loader(dataset: FeaturesDataset, tasks: int, workers: int) -> DataLoader:
    way, shot, query = FIVE_WAY.way, FIVE_WAY.shot, FIVE_WAY.query
    sampler = TaskSampler(dataset, n_way=way, n_shot=shot, n_query=query, n_tasks=tasks)
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=sampler.episodic_collate_fn,
    )


def _evaluation_on_features(bench: Bench) -> Step:
    """easyfsl's fastest way with a frozen network: every test image is embedded once.

    A step is a whole evaluation: the features of all test images, then ``TASKS`` tasks on them.
    """
    network = pooled_net().to(bench.device).eval()
    classifier = PrototypicalNetworks().to(bench.device)
    test, tasks = (bench.test[:10], 5) if bench.small else (bench.test, TASKS)
    images = DataLoader(_dataset(test), batch_size=IMAGES_A_BATCH)

    def step() -> int:
        features = FeaturesDataset.from_dataframe(
            predict_embeddings(images, network, device=str(bench.device))
        )
        loader = _loader(features, tasks, workers=0)
        evaluate(classifier, loader, device=str(bench.device), use_tqdm=False)
        return tasks

    return step


def _episodes(bench: Bench) -> Step:
    """``TaskSampler`` and a DataLoader, with no workers or with two, whichever is faster."""

    def delivery(workers: int) -> Step:
        episodes = endless(_loader(_dataset(bench.train), 100_000, workers))

        def step() -> int:
            *tensors, _ = next(episodes)
            for tensor in tensors:
                tensor.to(bench.device)
            return 1

        return step

    return fastest(bench, {f"{n} workers": partial(delivery, n) for n in (0, 2)})
