"""Checks of declarations that a run goes by without looking, and of the two modes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fewshot_bench.engine.evaluation import evaluate
from fewshot_bench.engine.executors.eager import Eager
from fewshot_bench.engine.inspection import far_behind, inspect_test, inspect_training
from fewshot_bench.engine.players import check_players
from fewshot_bench.errors import FewshotBenchError
from fewshot_bench.method import Method, accuracy
from fewshot_bench.sampling.base import EpisodeSource
from fewshot_bench.testing.checks import Fault, NotClaimed
from fewshot_bench.testing.method_contract import EXACT
from fewshot_bench.testing.subject import (
    MethodSubject,
    at_small_size,
    both,
    off,
    predict,
    require_close,
)
from fewshot_bench.testing.tiny import TinyBackbone

EPISODES = 50
SWITCHES = ("wants_backbone", "batchable", "class_equivariant", "capturable", "autocast",
            "embeds", "trains", "unlabeled_tasks")  # fmt: skip


def declarations(subject: MethodSubject) -> None:
    """Each declaration has one of its values, and a backbone that is wanted is used."""
    method = subject.build()
    for name in SWITCHES:
        if not isinstance(getattr(method, name), bool):
            raise Fault(f"{name} = {getattr(method, name)!r}; give True or False.")
    if not isinstance(method.transductive, bool):
        raise Fault(f"transductive = {method.transductive!r}; give True or False.")
    for name, values in (("source", ("episodes", "batches")), ("gradient", ("exact", "surrogate"))):
        if getattr(method, name) not in values:
            raise Fault(f"{name} = {getattr(method, name)!r}; give {' or '.join(values)}.")
    if subject.kind.wants_backbone and not _uses_backbone(method, subject):
        raise Fault(
            "neither losses() nor predict() runs the backbone, which the record would name; "
            "declare wants_backbone = False."
        )


def _uses_backbone(method: Method, subject: MethodSubject) -> bool:
    """Whether anything of the backbone is run: it may be inside another module of the method."""
    ran: list[bool] = []
    inner = [m for top in method.modules() if isinstance(top, TinyBackbone) for m in top.modules()]
    hooks = [m.register_forward_pre_hook(lambda *_: ran.append(True)) for m in inner]
    predict(method, subject.episode())
    method.train().losses(subject.training_episode())
    for hook in hooks:
        hook.remove()
    return bool(ran)


@both
def inductive(subject: MethodSubject) -> None:
    """Other queries change a prediction if it is declared transductive, and only then."""
    method, episode = subject.build().double(), subject.episode(dtype=torch.float64)
    others = subject.episode(seed=1, dtype=torch.float64).query
    query = torch.cat([episode.query[:, :1], others[:, 1:]], dim=1)
    whole, changed = predict(method, episode), predict(method, replace(episode, query=query))
    if method.transductive:
        if off(whole[:, :1], changed[:, :1]) <= EXACT:
            raise Fault(
                "it declares transductive = True, but other queries change no prediction: tables "
                "would mark it for nothing. Leave the declaration out."
            )
        raise NotClaimed("it is transductive")
    told = (
        "other queries change a prediction: a statistic over the queries? Declare it: "
        "transductive = True."
    )
    require_close(whole[:, :1], changed[:, :1], EXACT, told)
    alone = predict(method, replace(episode, query=episode.query[:, :1]))
    require_close(whole[:, :1], alone, EXACT, told)


def unlabeled_tasks(subject: MethodSubject) -> None:
    """losses takes tasks without any label, where unlabeled_tasks is declared."""
    if not subject.kind.unlabeled_tasks:
        raise NotClaimed("unlabeled_tasks = False")
    method, episode = subject.build().train(), subject.episode()
    images, _ = episode.support.labeled()
    bare = replace(
        episode,
        support=replace(episode.support, images=None, unlabeled=images),
        target=None,
        kind="unlabeled",
    )
    for name, value in method.losses(bare).players.items():
        if value.shape != (len(bare),) or not bool(value.isfinite().all()):
            raise Fault(
                f"the loss of '{name}' for tasks without labels is {value.tolist()}; one finite "
                f"number per task, ({len(bare)},), is wanted."
            )


@both
def at_run_time(subject: MethodSubject) -> None:
    """What a run looks at first finds nothing: no statistics over tasks, no draws without a key."""
    method = subject.build()
    lowering, test = Eager(method), subject.episode()
    try:
        inspect_test(lowering, test)
        if check_players(method):
            notes = inspect_training(lowering, subject.training_episode(), test)
            if notes:
                raise Fault(f"{notes[0]}.")
    except FewshotBenchError as error:
        raise Fault(str(error)) from error


@at_small_size
@both
def modes(subject: MethodSubject) -> None:
    """After some training, evaluation mode classifies about as well as training mode does."""
    method, source = subject.trained, subject.source("test")
    assert isinstance(source, EpisodeSource)
    tested = float(evaluate(Eager(method), source, EPISODES, chunk=EPISODES).accuracy.mean())
    trained = _in_training_mode(method, source)
    chance = 1 / subject.task.way
    queries = EPISODES * subject.task.way * subject.task.query
    if far_behind(trained, tested, subject.task.way, queries):
        raise Fault(
            f"{trained:.1%} right in training mode and {tested:.1%} in evaluation mode with "
            f"the same weights (chance is {chance:.1%}): what a test runs is not what was "
            "trained. Running statistics that no pass in training mode moves, or a branch on "
            "self.training?"
        )


def _in_training_mode(method: Method, source: EpisodeSource) -> float:
    episode = source.batch(range(EPISODES))
    assert episode.target is not None
    method.train()
    with torch.enable_grad():
        logits: Tensor = method.predict(method.adapt(episode.support), episode.query)
    method.eval()
    return float(accuracy(logits.detach(), episode.target).mean())


DECLARATIONS: Sequence[Callable[[Any], str | None]] = (
    declarations,
    inductive,
    unlabeled_tasks,
    at_run_time,
    modes,
)
