"""What every peer is given: the same episodes, the same networks, the same amounts of work.

This folder runs in an environment of the peers' own, where fewshot_bench is not installed: nothing
here imports it. A peer's adapter turns an item's name into a ``Step``, the smallest piece of work
that makes sense for it (one optimizer step, one evaluated task, one delivered batch of episodes).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Runs one step and says how many units (tasks, steps or episodes) it was.
Step = Callable[[], int]

META_BATCH = 32  # tasks a meta-step
INNER_RATE = 0.1
OUTER_RATE = 1e-3
CHANNELS = 64


class NotOffered(Exception):
    """The peer has nothing for this item; the message says what is missing."""


@dataclass(frozen=True)
class Shape:
    """Classes of an episode, and support and query images of each."""

    way: int
    shot: int
    query: int


@dataclass(frozen=True)
class Maml:
    """A MAML training item: episodes, inner steps, and whether the second derivative is taken."""

    shape: Shape
    inner_steps: int
    first_order: bool


FIVE_WAY = Shape(5, 5, 15)
INNER_STEPS = 5  # of an evaluated task
MAML_ITEMS = {
    "W1_second_order": Maml(FIVE_WAY, INNER_STEPS, first_order=False),
    "W1_first_order": Maml(FIVE_WAY, INNER_STEPS, first_order=True),
    "W1_one_shot_one_step": Maml(Shape(5, 1, 15), 1, first_order=False),
}
PROTONET_ITEMS = {"W2_5way": FIVE_WAY, "W2_60way": Shape(60, 5, 5)}
# An evaluated ProtoNet task, by where its batch norm takes the statistics from.
EVALUATION_ITEMS = {
    "W4_protonet_batch_statistics": False,
    "W4_protonet_running_statistics": True,
}
TRIAL_SECONDS = 2.0  # for each configuration that a peer's loader is tried in
ITEMS = (*MAML_ITEMS, *PROTONET_ITEMS, "W3", "W4_maml", *EVALUATION_ITEMS, "W5")


@dataclass(frozen=True)
class Episode:
    """One task: images [images, 1, 28, 28] class by class, and their labels [images]."""

    support: Tensor
    support_labels: Tensor
    query: Tensor
    query_labels: Tensor


class Given:
    """Weights and episodes that somebody else has chosen: everybody's gradient of the same.

    Arguments:
        arrays: ``support`` [T, way, shot, 1, 28, 28], ``query`` [T, Q, 1, 28, 28], ``target``
            [T, Q], and ``weight_00``, ``weight_01``, ... in the order of ``StridedNet``.
        device: where.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], device: torch.device) -> None:
        def tensor(name: str) -> Tensor:
            return torch.from_numpy(arrays[name]).to(device)

        support, query, target = (tensor(name) for name in ("support", "query", "target"))
        way, shot = support.shape[1:3]
        labels = torch.arange(way, device=device).repeat_interleave(shot)
        self.episodes = [
            Episode(support[t].flatten(0, 1), labels, query[t], target[t])
            for t in range(len(support))
        ]
        self.weights = [tensor(name) for name in sorted(arrays) if name.startswith("weight_")]

    def gradient(self, module: nn.Module, backward: Callable[[Episode], None]) -> np.ndarray:
        """The mean gradient over the episodes, all its numbers in one row."""
        parameters = list(module.parameters())
        with torch.no_grad():
            for parameter, weight in zip(parameters, self.weights, strict=True):
                parameter.copy_(weight)
        for episode in self.episodes:
            backward(episode)
        gradients = [p.grad.double().flatten() for p in parameters if p.grad is not None]
        return (torch.cat(gradients) / len(self.episodes)).cpu().numpy()


class Bench:
    """The data, resident as floats in [0, 1], and the sizes of the run.

    ``train`` and ``test`` are [classes, 20, 1, 28, 28]. ``small`` asks for steps of a fraction of
    a second, for tests. ``configuration`` says how a peer is used where that was found by trying.
    """

    def __init__(self, path: str, device: str = "cpu", small: bool = False) -> None:
        arrays = np.load(path)
        self.device = torch.device(device)
        self.small = small
        self.configuration: str | None = None
        self.found: np.ndarray | None = None
        self.given = Given(arrays, self.device) if "support" in arrays else None
        if self.given is not None:
            return
        self.train = self._floats(arrays["train"])
        self.test = self._floats(arrays["test"])
        self.tasks = 2 if small else META_BATCH
        self._random = np.random.default_rng(0)

    def _floats(self, images: np.ndarray) -> Tensor:
        return torch.from_numpy(images).to(self.device).float().div_(255)

    def episode(self, images: Tensor, shape: Shape) -> Episode:
        """Draw an episode: a gather from memory, the same for every peer."""
        way, images_each = shape.way, shape.shot + shape.query
        classes = self._random.choice(len(images), way, replace=False)
        order = self._random.permuted(np.tile(np.arange(images.shape[1]), (way, 1)), axis=1)
        drawn = images[torch.from_numpy(classes)[:, None], torch.from_numpy(order[:, :images_each])]
        labels = torch.arange(way, device=self.device)
        return Episode(
            drawn[:, : shape.shot].flatten(0, 1),
            labels.repeat_interleave(shape.shot),
            drawn[:, shape.shot :].flatten(0, 1),
            labels.repeat_interleave(shape.query),
        )

    def synchronize(self) -> None:
        """Wait for the device, so that the clock sees all of the work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class StridedNet(nn.Module):
    """MAML's Omniglot network: 4 x (3x3 convolution of stride 2, batch norm, ReLU), mean, linear.

    Batch norm uses the statistics of its batch, in training and at test.
    """

    def __init__(self, way: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (1, CHANNELS, CHANNELS, CHANNELS):
            layers += [
                nn.Conv2d(channels, CHANNELS, 3, stride=2, padding=1),
                nn.BatchNorm2d(CHANNELS, track_running_stats=False),
                nn.ReLU(),
            ]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(CHANNELS, way)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).mean((2, 3)))


def pooled_net(running_statistics: bool = True) -> nn.Sequential:
    """ProtoNet's network: 4 x (3x3 convolution, batch norm, ReLU, max-pool 2), flattened."""
    layers: list[nn.Module] = []
    for channels in (1, CHANNELS, CHANNELS, CHANNELS):
        layers += [
            nn.Conv2d(channels, CHANNELS, 3, padding=1),
            nn.BatchNorm2d(CHANNELS, track_running_stats=running_statistics),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    return nn.Sequential(*layers, nn.Flatten())


def outer_optimizer(module: nn.Module) -> torch.optim.Adam:
    """The outer optimizer of every item: Adam, with torch's own choice of implementation."""
    return torch.optim.Adam(module.parameters(), lr=OUTER_RATE)


def meta_training(
    bench: Bench, item: Maml, module: nn.Module, backward: Callable[[Episode], None]
) -> Step:
    """A meta-step: ``backward`` adds the gradient of a task to ``.grad``; the mean is applied.

    Going back task by task is the same gradient as going back once from the mean of the losses,
    holds the graph of one task at a time, and is what learn2learn's and higher's examples do.
    Where weights and episodes are given, a step leaves the gradient in ``bench.found``.
    """
    if bench.given is not None:
        given = bench.given

        def once() -> int:
            bench.found = given.gradient(module, backward)
            return len(given.episodes)

        return once
    optimizer = outer_optimizer(module)

    def step() -> int:
        optimizer.zero_grad()
        for _ in range(bench.tasks):
            backward(bench.episode(bench.train, item.shape))
        for parameter in module.parameters():
            assert parameter.grad is not None
            parameter.grad.mul_(1 / bench.tasks)
        optimizer.step()
        return bench.tasks

    return step


def protonet_training(
    bench: Bench, shape: Shape, network: nn.Module, loss_of: Callable[[Episode], Tensor]
) -> Step:
    """A training step of ProtoNet: one episode, Adam."""
    optimizer = outer_optimizer(network)
    network.train()

    def step() -> int:
        loss = loss_of(bench.episode(bench.train, shape))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return 1

    return step


def evaluation(bench: Bench, logits_of: Callable[[Episode], Tensor]) -> Step:
    """An evaluated test task: adapt to its support set, classify its queries, score them."""

    def step() -> int:
        episode = bench.episode(bench.test, FIVE_WAY)
        logits = logits_of(episode)
        (logits.argmax(1) == episode.query_labels).float().mean()
        return 1

    return step


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy, the loss of both loops."""
    return F.cross_entropy(logits, labels)


def fastest(bench: Bench, candidates: Mapping[str, Callable[[], Step]]) -> Step:
    """The fastest of a peer's configurations on this machine, named in ``bench.configuration``.

    A small run takes the first, which costs nothing.
    """
    if bench.small:
        candidates = dict([next(iter(candidates.items()))])
    rates: dict[str, float] = {}
    steps: dict[str, Step] = {}
    for name, make in candidates.items():
        step = steps[name] = make()
        step()  # starts worker processes, if any
        units, start = 0, time.perf_counter()
        while not units or time.perf_counter() - start < TRIAL_SECONDS:
            units += step()
        rates[name] = units / (time.perf_counter() - start)
    bench.configuration = max(rates, key=lambda name: rates[name])
    return steps[bench.configuration]


def endless(loader: Iterable[Any]) -> Iterator[Any]:
    """The batches of a loader, over and over."""
    while True:
        yield from loader
