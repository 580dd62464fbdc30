"""For each check of a method a method that is wrong in just that: {check's id: class}."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot_bench.episode import Episode, Support, UnlabeledEpisode
from fewshot_bench.method import Losses, Method, Player, Preset, cross_entropy, trainable
from fewshot_bench.nn import per_task, unobserved

WRONG: dict[str, type[Method]] = {}
BUILDS = itertools.count()  # unlike an address, it never comes again


def wrong(check: str) -> Any:
    """Put a class into the table."""

    def put(kind: type[Method]) -> type[Method]:
        WRONG[check] = kind
        return kind

    return put


class Right(Method):
    """Class means in the space of the backbone; declares everything that it can."""

    class_equivariant = capturable = autocast = embeds = unlabeled_tasks = True

    def embed(self, images: Tensor) -> Tensor:
        features = per_task(self.backbone, images).flatten(2)
        return features.to(torch.promote_types(features.dtype, torch.float32))

    def adapt(self, support: Support) -> Any:
        images, _ = support.labeled()
        return self.embedded(images).unflatten(1, support.images.shape[1:3]).mean(2)

    def predict(self, state: Any, query: Tensor) -> Tensor:
        return -(self.embedded(query).unsqueeze(2) - state.unsqueeze(1)).square().sum(-1)

    def unlabeled_losses(self, episode: UnlabeledEpisode) -> Losses:
        return Losses({"meta": self.embed(episode.query).square().mean((1, 2))})


@wrong("builds-alike")
class UnseededBuild(Right):
    def __init__(self, task: Any, backbone: Any) -> None:
        super().__init__(task, backbone)
        self.register_buffer("scale", torch.tensor(float(next(BUILDS))))


@wrong("options")
class PresetOfNothing(Right):
    presets = {"quick": Preset({"inner_lr": 0.1})}


@wrong("shapes")
class MeanLoss(Right):
    def losses(self, episode: Episode) -> Losses:
        losses = super().losses(episode)
        return Losses({"meta": losses.players["meta"].mean()})


@wrong("dtypes")
class SinglePrecision(Right):
    def predict(self, state: Any, query: Tensor) -> Tensor:
        return super().predict(state, query).float()


@wrong("finite")
class Detached(Right):
    def losses(self, episode: Episode) -> Losses:
        return Losses({"meta": super().losses(episode).players["meta"].detach()})


@wrong("repeatable")
class GlobalNoise(Right):
    def predict(self, state: Any, query: Tensor) -> Tensor:
        logits = super().predict(state, query)
        return logits + 0.1 * torch.rand_like(logits)


@wrong("pure-losses")
class Counting(Right):
    def __init__(self, task: Any, backbone: Any) -> None:
        super().__init__(task, backbone)
        self.register_buffer("calls", torch.zeros(()))

    def losses(self, episode: Episode) -> Losses:
        self.calls += 1
        return super().losses(episode)


@wrong("round-trip")
class Unregistered(Right):
    """A random projection that is no buffer."""

    def __init__(self, task: Any, backbone: Any) -> None:
        super().__init__(task, backbone)
        self.projection = [torch.rand(4)]

    def predict(self, state: Any, query: Tensor) -> Tensor:
        return super().predict(state, query) * self.projection[0].to(query.dtype).sum()


@wrong("players")
class Unowned(Right):
    def players(self) -> dict[str, Player]:
        first, *_ = trainable(self).items()
        return {"meta": Player(dict([first]))}


@wrong("gradients")
class Stopped(Right):
    def adapt(self, support: Support) -> Any:
        return super().adapt(support).detach()


@wrong("independent-tasks")
class CenteredOverTasks(Right):
    def predict(self, state: Any, query: Tensor) -> Tensor:
        return super().predict(state, query) * (1 + state.abs().mean())


@wrong("declarations")
class OddSwitch(Right):
    batchable = "yes"  # type: ignore[assignment]


@wrong("unlabeled-tasks")
class WantsLabels(Right):
    def unlabeled_losses(self, episode: UnlabeledEpisode) -> Losses:
        return Method.unlabeled_losses(self, episode)


@wrong("at-run-time")
class HiddenPasses(Right):
    def losses(self, episode: Episode) -> Losses:
        with unobserved():
            return super().losses(episode)


@wrong("modes")
class OtherAtTest(Right):
    def predict(self, state: Any, query: Tensor) -> Tensor:
        logits = super().predict(state, query)
        return logits if self.training else logits.roll(1, dims=-1)


@wrong("query-order")
class FirstIsSpecial(Right):
    def predict(self, state: Any, query: Tensor) -> Tensor:
        place = torch.linspace(0, 1, query.shape[1], dtype=query.dtype)
        return super().predict(state, query) * (1 + place).unsqueeze(-1)


@wrong("class-relabeling")
class FavoriteClass(Right):
    def predict(self, state: Any, query: Tensor) -> Tensor:
        logits = super().predict(state, query)
        return logits + torch.arange(logits.shape[-1], dtype=logits.dtype)


@wrong("inductive")
class CenteredQueries(Right):
    def predict(self, state: Any, query: Tensor) -> Tensor:
        return super().predict(state, query - query.mean(1, keepdim=True))


@wrong("captures")
class HostReads(Right):
    def predict(self, state: Any, query: Tensor) -> Tensor:
        logits = super().predict(state, query)
        return logits / max(1.0, logits.abs().max().item())


class MaskedQueries(Right):
    """Another way to fail at being capturable: how many numbers there are depends on them."""

    def predict(self, state: Any, query: Tensor) -> Tensor:
        logits = super().predict(state, query)
        return logits - logits[logits < -1].mean()


class OnTheHost(Right):
    """And another: a list of numbers."""

    def predict(self, state: Any, query: Tensor) -> Tensor:
        assert len(query.flatten(1).mean(1).tolist()) == len(query)
        return super().predict(state, query)


class DataDependentSteps(Right):
    """And another: no wait here, but other operations for other numbers."""

    def adapt(self, support: Support) -> Any:
        state = super().adapt(support)
        steps = 1 + int(support.images.numpy().sum() * 1e6) % 2
        for _ in range(steps):
            state = state * 1.0
        return state


@wrong("autocast")
class CoarseScale(Right):
    """A difference of large numbers, which eight bits do not hold."""

    def __init__(self, task: Any, backbone: Any) -> None:
        super().__init__(task, backbone)
        self.weight = nn.Parameter(torch.ones(1, 1))

    def predict(self, state: Any, query: Tensor) -> Tensor:
        logits = 100 * super().predict(state, query)
        shifted = (logits + 1e7).unsqueeze(-1) @ self.weight.to(logits.dtype)
        return shifted.squeeze(-1).to(logits.dtype) - 1e7


@wrong("embeds")
class LooksAside(Right):
    def predict(self, state: Any, query: Tensor) -> Tensor:
        return super().predict(state, query) * (1 + query.flatten(2).mean(-1, keepdim=True))


@wrong("resume")
class OwnClock(Right):
    """Anneals by a counter of its own, which no state_dict has."""

    calls = 0

    def losses(self, episode: Episode) -> Losses:
        self.calls += 1
        logits = self.predict(self.adapt(episode.support), episode.query)
        return Losses({"meta": cross_entropy(logits / self.calls, episode.target)})


@wrong("beats-chance")
class WrongAxis(Right):
    """Its classes are turned by one."""

    def adapt(self, support: Support) -> Any:
        return super().adapt(support).roll(1, dims=1)

    def losses(self, episode: Episode) -> Losses:
        logits = self.predict(self.adapt(episode.support), episode.query)
        return Losses({"meta": F.relu(logits.square().mean((1, 2)) - 1e9) + 0 * logits.sum((1, 2))})


@wrong("precision")
class Canceling(Right):
    """Takes a variance as the difference of two large numbers."""

    def adapt(self, support: Support) -> Any:
        return canceling(super().adapt(support))

    def predict(self, state: Any, query: Tensor) -> Tensor:
        return super().predict(state, query) + state.sum((1, 2)).view(-1, 1, 1)


def canceling(x: Tensor) -> Tensor:
    """Standardize by a variance that is the difference of two large numbers."""
    x = x + 1000
    variance = x.square().mean(-1, keepdim=True) - x.mean(-1, keepdim=True).square()
    return (x - x.mean(-1, keepdim=True)) / (variance.abs() + 1e-3).sqrt()


MORE_HOST_READS = (MaskedQueries, OnTheHost, DataDependentSteps)
