"""Small methods and data for the engine's tests."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import nn

from fewshot_bench.data.images import LabeledImages
from fewshot_bench.data.table import ClassTable
from fewshot_bench.engine.executors import TaskThreads
from fewshot_bench.episode import Task
from fewshot_bench.method import Losses, Method, Player, accuracy, cross_entropy
from fewshot_bench.nn import TaskBatchNorm, per_task
from fewshot_bench.rng import normal
from fewshot_bench.sampling.base import ClosedSampler, EpisodeSource

TASK = Task(3, 2, 3, image_shape=(1, 6, 6))


def source(
    classes: int = 8, seed: int = 0, task: Task = TASK, noise: int = 40, device: str = "cpu"
) -> EpisodeSource:
    """Separable data: each class is a random pattern with noise on it."""
    rng = np.random.default_rng(7)
    patterns = rng.integers(60, 200, (classes, 1, 1, 6, 6))
    images = patterns + rng.integers(-noise, noise + 1, (classes, 10, 1, 6, 6))
    labeled = LabeledImages(
        images.reshape(-1, 1, 6, 6).astype(np.uint8),
        np.full(classes, 10),
        tuple(map(str, range(classes))),
    )
    return EpisodeSource(ClosedSampler(ClassTable(labeled, device), replace(task), seed))


@contextmanager
def logged() -> Iterator[list[str]]:
    """The notes and warnings that the package logs meanwhile."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, handler = logging.getLogger("fewshot_bench"), Handler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def two_threads(method: Method) -> TaskThreads:
    """The executor of task threads, whatever the number of cores."""
    return TaskThreads(method, threads=2)


class Prototypes(Method):
    """Prototypical network on one linear layer and a normalization with running statistics."""

    def __init__(self, task: Task = TASK, backbone=None, lr: float = 1e-2, clip=None, ema=None):
        super().__init__(task, backbone)
        self.embed = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), TaskBatchNorm(8, "running"))
        self.lr, self.clip, self.ema = lr, clip, ema

    def players(self):
        parameters = dict(self.embed.named_parameters())
        optimizer = partial(torch.optim.Adam, lr=self.lr)
        return {"meta": Player(parameters, optimizer, clip=self.clip, ema=self.ema)}

    def adapt(self, support):
        images, _ = support.labeled()
        way, shot = support.images.shape[1:3]
        return per_task(self.embed, images).unflatten(1, (way, shot)).mean(2)

    def predict(self, state, query):
        return -torch.cdist(per_task(self.embed, query), state).square()


class TwoPlayers(Method):
    """A critic and a forger in turns, with keyed noise: the shape of a GAN."""

    turns = (("critic",), ("forger",))

    def __init__(self, task: Task = TASK, backbone=None):
        super().__init__(task, backbone)
        self.critic = nn.Linear(36, 3)
        self.forger = nn.Linear(4, 36)

    def players(self):
        return {
            "critic": Player(dict(self.critic.named_parameters()), reduction="sum"),
            "forger": Player(dict(self.forger.named_parameters())),
        }

    def adapt(self, support):
        return support.images.flatten(3).mean(2)

    def predict(self, state, query):
        return self.critic(query.flatten(2)) + query.flatten(2) @ state.transpose(1, 2) * 0.01

    def losses(self, episode):
        fakes = self.forger(normal(episode.key, "z", (5, 4), episode.query.dtype))
        logits = self.predict(self.adapt(episode.support), episode.query)
        real = cross_entropy(logits, episode.target)
        fooled = torch.logsumexp(self.critic(fakes), -1).mean(1)
        return Losses(
            {"critic": real + fooled, "forger": -fooled},
            {"accuracy": accuracy(logits, episode.target)},
        )
