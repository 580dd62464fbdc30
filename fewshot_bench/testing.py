"""Checks that the author of a method runs on it; nothing here needs data or a trained network.

::

    method = MyMethod(TINY, TinyBackbone(TINY.image_shape))
    assert max(gradient_error(method, tiny_episode()).values()) < 1e-6

The tiny network is smooth (no ReLU, no max-pooling), because finite differences across a kink are
no derivative.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fewshot_bench.engine.lowering import differentiate
from fewshot_bench.engine.training import check_players
from fewshot_bench.episode import Episode, Support, Task
from fewshot_bench.errors import UnknownName
from fewshot_bench.method import Method
from fewshot_bench.nn import TaskBatchNorm, record, replay
from fewshot_bench.nn.norm import Statistics
from fewshot_bench.random import fold, key_of, normal, permutation

TINY = Task(way=3, shot=2, query=2, image_shape=(1, 6, 6))


class TinyBackbone(nn.Module):
    """A smooth backbone of two convolutions: [N, C, H, W] -> [N, channels, h, w].

    Arguments:
        image_shape: (C, H, W).
        channels: feature maps of both layers.
        statistics: see :class:`fewshot_bench.nn.TaskBatchNorm`.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int] = TINY.image_shape,
        *,
        channels: int = 3,
        statistics: Statistics = "batch",
    ) -> None:
        super().__init__()
        inputs, height, width = image_shape
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, channels, 3, stride=2, padding=1),
            TaskBatchNorm(channels, statistics),
            nn.Softplus(),
            nn.Conv2d(channels, channels, 3, padding=1),
            TaskBatchNorm(channels, statistics),
            nn.Tanh(),
        )
        self.out_shape = (channels, (height + 1) // 2, (width + 1) // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def tiny_episode(
    way: int = TINY.way,
    shot: int = TINY.shot,
    query: int = TINY.query,
    tasks: int = 2,
    image_shape: tuple[int, int, int] = TINY.image_shape,
    unlabelled: int = 0,
    *,
    distractors: int = 0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Episode:
    """A batch of random tasks: each class is a random pattern, its images that plus noise.

    Arguments:
        way, shot, query, unlabelled, distractors: see :class:`fewshot_bench.episode.Task`.
        tasks: T.
        image_shape: (C, H, W).
        seed: another one, other images.
        dtype: of the images.
    """
    task = Task(way, shot, query, unlabelled, distractors, image_shape)
    key = fold(torch.arange(tasks), key_of("tiny_episode", seed))
    patterns = normal(key, "patterns", (task.classes, 1, *image_shape), dtype)

    def images(tag: str, classes: int, each: int) -> Tensor:
        noise = normal(key, tag, (classes, each, *image_shape), dtype)
        return patterns[:, :classes] + 0.5 * noise

    def shuffled(tag: str, values: Tensor) -> Tensor:
        order = permutation(key, tag, values.shape[1])
        return torch.stack([row[index] for row, index in zip(values, order, strict=True)])

    labels = torch.arange(way).repeat_interleave(query).expand(tasks, -1)
    others = images("unlabelled", task.classes, unlabelled).flatten(1, 2)
    return Episode(
        support=Support(
            images("support", way, shot),
            shuffled("unlabelled order", others) if unlabelled else None,
            key,
        ),
        query=shuffled("query order", images("query", way, query).flatten(1, 2)),
        target=shuffled("query order", labels),
        class_ids=torch.arange(tasks * way).unflatten(0, (tasks, way)),
        key=key,
    )


def gradient_error(
    method: Method,
    episode: Episode,
    players: Sequence[str] | None = None,
    *,
    eps: float = 1e-4,
    samples: int = 12,
) -> dict[str, float]:
    """How far each player's gradient is from finite differences of its loss.

    A copy of the method is cast to float64 and set to training; its loss, summed over tasks, is
    differentiated by autograd as the training loop does it, and by central differences of fourth
    order through everything that the loss contains, inner loops too. If ``method.gradient`` is
    ``"surrogate"``, the tensors that went through :func:`fewshot_bench.nn.stop` are kept at their
    values meanwhile; else they are not, and a stopped term shows as an error.

    Arguments:
        method: has to have no kinks (no ReLU, no max-pooling), or the differences mean nothing.
        episode: a batch of tasks; cast to float64.
        players: names; None: all.
        eps: step of the differences.
        samples: how many entries of each parameter are checked, spread evenly over it.

    Returns:
        {player: the worst error of its parameters}. The error of a parameter is the norm of
        (difference - gradient) over its checked entries, divided by the norm of those gradients;
        where that is next to nothing (the bias before a batch normalisation has gradient 0), by
        a thousandth of the largest such norm of the player.

    Raises:
        UnknownName: no such player.
    """
    method, episode = copy.deepcopy(method).double().train(), episode.to(torch.float64)
    owners = check_players(method)
    names = list(owners) if players is None else list(players)
    for name in names:
        if name not in owners:
            raise UnknownName("player", name, owners)
    with record() as constants:
        gradients = differentiate(method, episode, owners, names).gradients

    def loss(name: str) -> float:
        with torch.enable_grad():  # an inner loop differentiates
            if method.gradient == "exact":
                return method.losses(episode).players[name].sum().item()
            with replay(constants):
                return method.losses(episode).players[name].sum().item()

    errors = {}
    for name in names:
        misses, sizes = [], []
        for parameter, gradient in zip(
            owners[name].parameters.values(), gradients[name], strict=True
        ):
            count = min(samples, parameter.numel())
            chosen = torch.linspace(0, parameter.numel() - 1, count, dtype=torch.float64)
            where = chosen.long().tolist()
            exact = gradient.flatten()[where]
            slopes = exact.new_tensor([_slope(loss, name, parameter, i, eps) for i in where])
            misses.append(float((slopes - exact).norm()))
            sizes.append(float(exact.norm()))
        miss, size = torch.tensor(misses), torch.tensor(sizes)
        ratio = miss / size.clamp_min(1e-3 * float(size.max()))
        errors[name] = float(torch.where(miss == 0, 0.0, ratio).max())  # NaN stays NaN
    return errors


@torch.no_grad()
def _slope(loss: Callable[[str], float], name: str, weight: Tensor, i: int, eps: float) -> float:
    """d loss / d weight[i] by the five-point formula, whose error falls with eps**4."""
    flat = weight.view(-1)
    before = flat[i].item()
    values = []
    for step in (-2, -1, 1, 2):
        flat[i] = before + step * eps
        values.append(loss(name))
    flat[i] = before
    a, b, c, d = values
    return (a - 8 * b + 8 * c - d) / (12 * eps)
