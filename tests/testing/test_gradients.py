"""The checks for authors of methods: right gradients pass, wrong ones of each kind do not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fewshot_bench.episode import Episode, Support
from fewshot_bench.errors import UnknownName
from fewshot_bench.method import Losses, Method, Player
from fewshot_bench.nn import per_task, stop
from fewshot_bench.testing import TINY, TinyBackbone, gradient_error, tiny_episode


class Means(Method):
    """Class means in the space of the tiny backbone."""

    def adapt(self, support: Support) -> Tensor:
        images, _ = support.labeled()
        return self.embed(images).unflatten(1, (self.task.way, -1)).mean(2)

    def predict(self, state: Tensor, query: Tensor) -> Tensor:
        return -(self.embed(query).unsqueeze(2) - state.unsqueeze(1)).square().sum(-1)

    def embed(self, images: Tensor) -> Tensor:
        return per_task(self.backbone, images).flatten(2)


class Twice(torch.autograd.Function):
    """2x, with a derivative that is a ten-thousandth too large."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: object, g: Tensor) -> Tensor:
        return 2.0002 * g


class SlightlyWrong(Means):
    def embed(self, images: Tensor) -> Tensor:
        return Twice.apply(super().embed(images))


class Stopped(Means):
    """The queries' gradient does not reach the means."""

    def adapt(self, support: Support) -> Tensor:
        return stop(super().adapt(support))


class Pair(Method):
    """Two players; the loss of the second has a wrong gradient."""

    turns = (("right",), ("wrong",))

    def __init__(self) -> None:
        super().__init__(TINY)
        self.a, self.b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))

    def players(self) -> dict[str, Player]:
        return {"right": Player({"a": self.a}), "wrong": Player({"b": self.b})}

    def losses(self, episode: Episode) -> Losses:
        scale = episode.query.flatten(1).mean(1)
        right = (self.a**3).sum() * scale
        wrong = (self.b * self.b.detach()).sum() * scale
        return Losses({"right": right, "wrong": wrong})


def method(kind: type[Method], **backbone: str) -> Method:
    torch.manual_seed(0)
    return kind(TINY, TinyBackbone(**backbone))


@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_right_gradients_pass(statistics: str) -> None:
    assert gradient_error(method(Means, statistics=statistics), tiny_episode())["meta"] < 1e-8


def test_a_gradient_that_is_off_by_a_ten_thousandth_is_seen() -> None:
    assert 1e-5 < gradient_error(method(SlightlyWrong), tiny_episode())["meta"] < 1e-3


def test_a_stopped_term_passes_only_as_the_surrogate_that_it_is_declared_to_be() -> None:
    stopped = method(Stopped)
    assert gradient_error(stopped, tiny_episode())["meta"] > 1e-2
    stopped.gradient = "surrogate"
    assert gradient_error(stopped, tiny_episode())["meta"] < 1e-8


def test_each_player_is_judged_by_its_own_parameters() -> None:
    errors = gradient_error(Pair(), tiny_episode())
    assert errors["right"] < 1e-8 < 0.1 < errors["wrong"]
    assert set(gradient_error(Pair(), tiny_episode(), ["right"])) == {"right"}
    with pytest.raises(UnknownName, match="did you mean 'right'"):
        gradient_error(Pair(), tiny_episode(), ["rigth"])


def test_the_method_that_is_checked_stays_as_it_is() -> None:
    means = method(Means).eval()
    before = {name: value.clone() for name, value in means.state_dict().items()}
    gradient_error(means, tiny_episode(), samples=2)
    assert not means.training
    assert all(torch.equal(value, before[name]) for name, value in means.state_dict().items())
    assert {p.dtype for p in means.parameters()} == {torch.float32}


def test_an_episode_has_the_shapes_that_were_asked_for() -> None:
    episode = tiny_episode(4, 3, 2, 3, (2, 5, 7), unlabeled=2, distractors=1, seed=5)
    assert episode.support.unlabeled is not None
    assert episode.support.images.shape == (3, 4, 3, 2, 5, 7)
    assert episode.support.unlabeled.shape == (3, 10, 2, 5, 7)
    assert episode.query.shape == (3, 8, 2, 5, 7)
    assert episode.target.sort(1).values.tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]] * 3
    assert episode.class_ids.shape == (3, 4)
    assert not torch.equal(episode.target[0], episode.target[1])


def test_targets_belong_to_their_queries() -> None:
    episode = tiny_episode(shot=20, query=20, tasks=4)
    means = episode.support.images.flatten(3).mean(2)
    nearest = torch.cdist(episode.query.flatten(2), means).argmin(-1)
    assert (nearest == episode.target).double().mean() > 0.95


def test_an_episode_is_a_function_of_its_seed() -> None:
    assert torch.equal(tiny_episode(seed=1).query, tiny_episode(seed=1).query)
    assert not torch.equal(tiny_episode(seed=1).query, tiny_episode(seed=2).query)
    assert torch.equal(tiny_episode(tasks=1).query, tiny_episode(tasks=3).query[:1])
