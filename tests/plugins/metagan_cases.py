"""Small bases and episodes for the tests of MetaGAN: every number can be followed."""

from __future__ import annotations

from typing import Any

import torch
from fsb_metagan.metagan import MetaGAN
from torch import Tensor, nn

from fewshot_bench.config.options import arguments_of
from fewshot_bench.engine.executors import differentiate
from fewshot_bench.episode import Episode, Support, Task
from fewshot_bench.method import Method, cross_entropy
from fewshot_bench.nn import per_task, stop, task_weights
from fewshot_bench.testing import tiny_episode

TASK = Task(way=3, shot=2, query=2, image_shape=(1, 4, 4), pixel_range=(-1.0, 1.0))


class Descent(Method):
    """A base with an inner loop: gradient steps of a one-hidden-layer network."""

    steps, rate = 2, 0.3

    def __init__(self, task: Task, first_order: bool = False) -> None:
        super().__init__(task)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Tanh())
        self.head = nn.Linear(4, task.way)
        self.first_order = first_order
        self.gradient = "surrogate" if first_order else "exact"

    def adapt(self, support: Support, inner_loss: Any = None) -> dict[str, Tensor]:
        if inner_loss is None:
            images, labels = support.labeled()

            def inner_loss(theta: dict[str, Tensor]) -> Tensor:
                return cross_entropy(self.predict(theta, images), labels)

        theta = task_weights(self, len(support.key))
        for _ in range(self.steps):
            loss = inner_loss(theta).sum()
            g = torch.autograd.grad(loss, list(theta.values()), create_graph=not self.first_order)
            g = [stop(x) for x in g] if self.first_order else g
            theta = {n: w - self.rate * d for (n, w), d in zip(theta.items(), g, strict=True)}
        return theta

    def discriminate(self, theta: dict[str, Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
        body = {n.removeprefix("body."): w for n, w in theta.items() if n.startswith("body.")}
        features = per_task(self.body, images, body)
        head = {n.removeprefix("head."): w for n, w in theta.items() if n.startswith("head.")}
        return per_task(self.head, features, head), features

    def predict(self, state: dict[str, Tensor], query: Tensor) -> Tensor:
        return self.discriminate(state, query)[0]

    def become_discriminator(self, outputs: int) -> None:
        if outputs:
            self.head = nn.Linear(4, self.task.way + outputs)


class Metric(Method):
    """A base without an inner loop: distances to class means, a learned scale and fake logit."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Tanh())
        self.scale = nn.Parameter(torch.ones(()))
        self.fake = nn.Parameter(torch.empty(0))

    def adapt(self, support: Support, inner_loss: Any = None) -> Tensor:
        images, _ = support.labeled()
        return per_task(self.body, images).unflatten(1, support.images.shape[1:3]).mean(2)

    def discriminate(self, state: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        features = per_task(self.body, images)
        near = -self.scale * (features.unsqueeze(2) - state.unsqueeze(1)).square().sum(-1)
        return torch.cat([near, self.fake.expand(*near.shape[:2], -1)], dim=-1), features

    def predict(self, state: Tensor, query: Tensor) -> Tensor:
        return self.discriminate(state, query)[0]

    def become_discriminator(self, outputs: int) -> None:
        self.fake = nn.Parameter(torch.zeros(outputs))


def episode(tasks: int = 2, seed: int = 0) -> Episode:
    return tiny_episode(TASK.way, TASK.shot, TASK.query, tasks, TASK.image_shape, seed=seed)


class TinyEncoder(nn.Sequential):
    out_features = 3

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(16, 3), nn.Tanh())


def metagan(base: Method | None = None, smooth: bool = True, **options: Any) -> MetaGAN:
    """A MetaGAN in float64; smooth: with networks that have no kink and few weights."""
    torch.manual_seed(0)
    base = base or Descent(TASK)
    sizes: dict[str, Any] = {
        "generator_network": "small", "encoder_network": "small", "generator_z_dim": 2,
    }  # fmt: skip
    method = MetaGAN(TASK, base=base, **arguments_of(MetaGAN, sizes | options))
    if smooth:
        method.encoder = TinyEncoder()
        method.generator = nn.Sequential(
            nn.Linear(method.generation.z_dim + 3, 16), nn.Tanh(), nn.Unflatten(1, TASK.image_shape)
        )
    return method.double()


def gradient_of(method: MetaGAN, batch: Episode) -> dict[str, list[Tensor]]:
    players = method.players()
    return differentiate(method, batch, players, tuple(players)).gradients
