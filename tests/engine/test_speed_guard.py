"""The regression guard: ours against a plain loop in the same process, in CPU time of one thread.

Ratios of the best of several rounds, taken in turn. A bound is far enough from what is measured
that noise does not trip it, and near enough that a pass through the network more does.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from fsb_backbones.conv import conv4, conv4_strided
from fsb_maml.maml import MAML
from fsb_protonet.protonet import ProtoNet
from torch import nn
from torch.func import functional_call

from fewshot_bench.data.images import LabeledImages
from fewshot_bench.data.table import ClassTable
from fewshot_bench.engine.evaluation import evaluate
from fewshot_bench.engine.executors import Eager
from fewshot_bench.engine.training import Plan, Trainer
from fewshot_bench.episode import Task
from fewshot_bench.sampling.base import ClosedSampler, EpisodeSource
from tests.ratios import ratio

TASK = Task(5, 1, 5, image_shape=(1, 28, 28))


def source(classes: int = 10) -> EpisodeSource:
    images = np.random.default_rng(0).integers(0, 256, (classes * 20, 1, 28, 28), dtype=np.uint8)
    labeled = LabeledImages(images, np.full(classes, 20), tuple(map(str, range(classes))))
    return EpisodeSource(ClosedSampler(ClassTable(labeled), TASK, 0))


def trainer(method) -> Trainer:
    method.train()
    return Trainer(method, Eager(method), source(), Plan(1000, 2))


def test_a_step_of_maml_costs_little_more_than_the_plain_loop() -> None:
    backbone = conv4_strided((1, 28, 28))
    ours = trainer(MAML(TASK, backbone, inner_steps=2, inner_lr=0.1))
    layers: list[nn.Module] = []
    for channels in (1, 64, 64, 64):
        layers += [nn.Conv2d(channels, 64, 3, stride=2, padding=1)]
        layers += [nn.BatchNorm2d(64, track_running_stats=False), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 5))
    adam, episodes = torch.optim.Adam(net.parameters()), source()
    labels, step = torch.arange(5), iter(range(0, 10_000, 2))

    def plain() -> None:
        batch = episodes.batch(range(first := next(step), first + 2))
        for t in range(2):
            theta = dict(net.named_parameters())
            for _ in range(2):
                loss = F.cross_entropy(
                    functional_call(net, theta, batch.support.images[t, :, 0]), labels
                )
                slopes = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
                theta = {n: w - 0.1 * g for (n, w), g in zip(theta.items(), slopes, strict=True)}
            F.cross_entropy(functional_call(net, theta, batch.query[t]), batch.target[t]).backward()
        adam.step()
        adam.zero_grad()

    assert ratio(ours.advance, plain, 1.5) < 1.5


def test_a_step_of_protonet_costs_little_more_than_the_plain_loop() -> None:
    """The plain loop's normalization is the inaccurate one, which saves it a pass."""
    ours = trainer(ProtoNet(TASK, conv4((1, 28, 28))))
    layers: list[nn.Module] = []
    for channels in (1, 64, 64, 64):
        layers += [nn.Conv2d(channels, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    net = nn.Sequential(*layers, nn.Flatten())
    adam, episodes, step = torch.optim.Adam(net.parameters()), source(), iter(range(0, 10_000, 2))

    def plain() -> None:
        batch = episodes.batch(range(first := next(step), first + 2))
        for t in range(2):
            means = net(batch.support.images[t].flatten(0, 1)).unflatten(0, (5, 1)).mean(1)
            distances = (net(batch.query[t]).unsqueeze(1) - means).square().sum(-1)
            F.cross_entropy(-distances, batch.target[t]).backward()
        adam.step()
        adam.zero_grad()

    assert ratio(ours.advance, plain, 1.8) < 1.8


def test_embedding_once_pays() -> None:
    class Plain(ProtoNet):
        embeds = False

    once, direct = (Eager(kind(TASK, conv4((1, 28, 28)))) for kind in (ProtoNet, Plain))
    data = source()

    def scores(runs: Eager) -> object:
        return evaluate(runs, data, 60, chunk=2)

    assert ratio(lambda: scores(once), lambda: scores(direct), 0.5) < 0.5
