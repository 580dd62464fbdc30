"""Checks of what a method declares, and of how it trains."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewshot_bench.engine.checkpointing.state import copied, restore, state_of
from fewshot_bench.engine.checkpointing.store import Store
from fewshot_bench.engine.embedding import TOLERANCE
from fewshot_bench.engine.evaluation import evaluate
from fewshot_bench.engine.executors.eager import Eager, differentiate
from fewshot_bench.engine.plan import Plan
from fewshot_bench.engine.players import check_players
from fewshot_bench.engine.training import Trainer
from fewshot_bench.errors import PluginError
from fewshot_bench.sampling.base import EpisodeSource
from fewshot_bench.testing.checks import Fault, NotClaimed
from fewshot_bench.testing.method_contract import EXACT
from fewshot_bench.testing.subject import (
    STEPS,
    MethodSubject,
    at_small_size,
    both,
    predict,
    require_close,
)
from fewshot_bench.utils import devices

EPISODES = 50  # of the test that has to beat chance


@both
def query_order(subject: MethodSubject) -> None:
    """The order of the queries does not change their predictions."""
    method, episode = subject.build().double(), subject.episode(dtype=torch.float64)
    order = torch.arange(episode.query.shape[1]).flip(0)
    turned = replace(episode, query=episode.query[:, order])
    told = "a query's prediction depends on its place; treat axis 1 of the queries as a set."
    require_close(predict(method, episode)[:, order], predict(method, turned), EXACT, told)


def class_relabeling(subject: MethodSubject) -> None:
    """Relabeling the classes relabels the predictions, where class_equivariant is declared."""
    if not subject.kind.class_equivariant:
        raise NotClaimed("class_equivariant = False")
    method, episode = subject.build().double(), subject.episode(dtype=torch.float64)
    images = episode.support.images
    assert images is not None
    order = torch.arange(subject.task.way).roll(1)
    turned = replace(episode, support=replace(episode.support, images=images[:, order]))
    told = "the number of a class matters; declare class_equivariant = False, or treat all alike."
    require_close(predict(method, episode)[..., order], predict(method, turned), EXACT, told)


def autocast(subject: MethodSubject) -> None:
    """Under bf16 autocast losses and gradients are finite and near, where it is declared."""
    if not subject.kind.autocast:
        raise NotClaimed("autocast = False")
    method, episode = subject.build().train(), subject.training_episode()
    owners = check_players(method)
    exact = differentiate(method, episode, owners, list(owners))
    with devices.autocast(torch.device("cpu"), torch.bfloat16):
        rough = differentiate(method, episode, owners, list(owners))
    for name, loss in exact.losses.items():
        told = f"the loss of '{name}' goes wrong in bf16; compute its distances in float32."
        require_close(rough.losses[name], loss, 0.1, told)
    for name, gradient in rough.gradients.items():
        if not all(bool(g.isfinite().all()) for g in gradient):
            raise Fault(f"a gradient of player '{name}' is not finite in bf16.")


def embeds(subject: MethodSubject) -> None:
    """adapt and predict see images through embed alone, where embeds is declared."""
    if not subject.kind.embeds:
        raise NotClaimed("embeds = False")
    method: Any = subject.build().eval()
    episode = subject.episode()
    direct = predict(method, episode)
    images, _ = episode.support.labeled()
    way, shot = subject.task.way, subject.task.shot
    with torch.no_grad():
        support = method.embed(images).unflatten(1, (way, shot))
        query = method.embed(episode.query)
    object.__setattr__(method, "embed", lambda features: features)
    features = replace(episode, support=replace(episode.support, images=support), query=query)
    told = "it looks at images without embed(); use embed() alone, or declare embeds = False."
    require_close(direct, predict(method, features), TOLERANCE, told)


def resume(subject: MethodSubject) -> None:
    """Training that goes on from a checkpoint ends where unbroken training does."""
    if not check_players(subject.build()):
        raise NotClaimed("nothing trains")
    whole, first, second = (_trainer(subject, seed) for seed in (1, 1, 2))
    _advance(whole, 4)
    _advance(first, 2)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        try:
            store.save(first.step, state_of(first))
        except PluginError as error:
            raise Fault(str(error)) from error
        saved = store.newest(lambda _: None)
    assert saved is not None
    restore(second, saved)
    _advance(second, 2)
    told = (
        "after a break: a counter or other state that is neither a parameter nor a registered "
        "buffer, nor given by get_extra_state()?"
    )
    unbroken = copied(whole.method.state_dict())
    for name, value in copied(second.method.state_dict()).items():
        if isinstance(value, Tensor):
            require_close(value, unbroken[name], 0.0, f"'{name}' {told}")
        elif value != unbroken[name]:
            raise Fault(f"'{name}' is {value!r} and not {unbroken[name]!r} {told}")


def _advance(trainer: Trainer, steps: int) -> None:
    for _ in range(steps):
        trainer.advance()


def _trainer(subject: MethodSubject, seed: int, steps: int = 4, tasks: int = 2) -> Trainer:
    method = subject.build(seed).train()
    return Trainer(method, Eager(method), subject.source("train"), Plan(steps, tasks))


@at_small_size
def beats_chance(subject: MethodSubject) -> None:
    """A short training on separable images ends above chance on new classes."""
    method = subject.trained
    source = subject.source("test")
    assert isinstance(source, EpisodeSource)
    scores = evaluate(Eager(method), source, EPISODES, chunk=EPISODES).accuracy
    chance = 1 / subject.task.way
    queries = EPISODES * subject.task.way * subject.task.query
    least = chance + 4 * math.sqrt(chance * (1 - chance) / queries)
    if not scores.mean() > least:
        raise Fault(
            f"{scores.mean():.1%} correct after {STEPS} steps; chance is {chance:.1%}, and above "
            f"{least:.1%} is wanted. Is the target in the loss that of the logits' axis?"
        )


def speed(subject: MethodSubject) -> str:
    """How long it takes to learn and classify a task, beside class means on pixels."""
    method, episode = subject.build().eval(), subject.episode(1)

    def means() -> Tensor:
        assert episode.support.images is not None
        centers = episode.support.images.flatten(3).mean(2)
        return -torch.cdist(episode.query.flatten(2), centers)

    own, floor = _seconds(lambda: predict(method, episode)), _seconds(means)
    return f"{1e3 * own:.3g} ms a task here, {own / floor:.0f} times that of class means on pixels"


def _seconds(call: Callable[[], object], times: int = 20) -> float:
    """The shortest of several, after one to warm up."""
    call()
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return min(taken)


CLAIMS: Sequence[Callable[[Any], str | None]] = (
    query_order,
    class_relabeling,
    autocast,
    embeds,
    resume,
    beats_chance,
    speed,
)
