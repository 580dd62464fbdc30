"""A look at a method before its numbers count: what can be wrong without showing in them.

One task is run a few times. What is found is an error where the number would be wrong, and a
sentence for the screen and the record where it could not be had again.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fewshot_bench.engine.executors.eager import Eager
from fewshot_bench.engine.hidden import KEYED, UNREPEATABLE, copied, repeatable, require_tasks_apart
from fewshot_bench.engine.statistics import note, require_collected, require_moved
from fewshot_bench.episode import Episode
from fewshot_bench.errors import PluginError, is_out_of_memory, plugin_errors
from fewshot_bench.method import Losses, Method, accuracy, title_of
from fewshot_bench.utils.generators import (
    generators_preserved,
    generators_used,
    global_generators,
)

UNTRAINED, RANDOM = "nothing to train here", "random weights"
BEHIND = "evaluation mode is far behind training mode"
RELATED = 1e-2  # the same for the answer to a query among other queries
ROUNDING = 1e-3  # of the largest number; a GPU may add up in another order the second time


@generators_preserved()
def inspect_training(lowering: Eager, episode: Episode, test: Episode) -> list[str]:
    """Look at ``losses``, on training tasks; ``test``: one to learn and classify.

    Two tasks show whether one influences the other.

    Returns:
        What a reader of the result has to know.

    Raises:
        PluginError: statistics cross tasks, or running ones never move, or a task's loss depends
            on the other tasks of its batch.
    """
    lowering, both = _aside(lowering), episode
    episode = _alone(lowering, episode)
    method, found = lowering.method, []

    def losses() -> None:
        title = f"{title_of(method)}.losses()"
        with lowering.set_up(episode.query.device), torch.enable_grad(), plugin_errors(title):
            found.append(method.losses(episode))

    before = global_generators()
    method.train()
    require_tasks_apart(method, "losses", losses)
    require_collected(method, len(episode), losses, lambda: _predict(lowering, test))
    if generators_used(before, global_generators()):
        return []  # the loop tells of global generators
    if not _alike(*found):
        return [
            f"{UNREPEATABLE}: {title_of(method)}.losses() gives other losses for the same episode "
            f"the second time; {KEYED}, and keep nothing between calls"
        ]
    _require_tasks_independent(lowering, both, "losses()", _losses)
    return []


def untrained(method: Method, other: Method | None) -> list[str]:
    """What a reader has to know of a method that nothing trains.

    Arguments:
        other: the same method of another seed; None: its weights were given to it.
    """
    told = []
    parameters = any(p.numel() for p in method.parameters())
    if parameters or method.wants_backbone:
        why = (
            f"{title_of(method)} has no parameters"
            if not parameters
            else f"players() of {title_of(method)} is empty"
            if not method.players()
            else f"no parameter of {title_of(method)} requires gradients"
        )
        told.append(f"{UNTRAINED}: {why}; it is evaluated as it is")
    if other is not None and (drawn := _drawn(method, other)):
        told.append(_random(method, drawn, "nothing trains them"))
    return told


@generators_preserved()
def left_random(lowering: Eager, first: Method, other: Method, episode: Episode) -> list[str]:
    """What a reader has to know of random weights that a training left as they were.

    A network that is frozen, or whose passes are cut off from the loss, stays what the seed made
    it. Weights that no prediction depends on (a generator's) are nobody's concern.

    Arguments:
        lowering: of the trained method.
        first: the method as it was before the training; it is changed here.
        other: the same of another seed.
        episode: a task to learn and to classify.
    """
    method = lowering.method
    now, begun = _numbers(method), _numbers(first)
    left = [name for name in _drawn(first, other) if _same(now[name], begun[name])]
    if not left:
        return []
    first.to(episode.query.device).load_state_dict(method.state_dict())
    plain = Eager(first, precision=lowering.precision, task_chunk=lowering.task_chunk)
    before, values, drawn = _predict(plain, episode), _numbers(first), _numbers(other)
    with torch.no_grad():
        for name in left:
            values[name].copy_(drawn[name])
    if _near(before, _predict(plain, episode)):
        return []
    return [_random(method, left, "the training left them as they were; do they get a gradient?")]


def _numbers(method: Method) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return {**dict(method.named_parameters()), **dict(method.named_buffers())}


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.to(other).nan_to_num(), other.nan_to_num())


def _drawn(method: Method, other: Method) -> list[str]:
    """Names of what differs between two seeds."""
    others = _numbers(other)
    return [name for name, value in _numbers(method).items() if not _same(value, others[name])]


def _random(method: Method, names: list[str], what: str) -> str:
    """The sentence on numbers that come from the seed."""
    own = any(not name.startswith("backbone.") for name in names)
    values = _numbers(method)
    count = sum(values[name].numel() for name in names)
    return (
        f"{RANDOM}: {'the method' if own else 'the backbone'} has random weights "
        f"({count:,} numbers come from the seed), and {what}"
    )


def of_weights(note: str) -> bool:
    """Whether a sentence of a record is about its weights, however they are evaluated."""
    return note.startswith((UNTRAINED, RANDOM, BEHIND, UNREPEATABLE))


@generators_preserved()
def compare_modes(lowering: Eager, episode: Episode) -> list[str]:
    """After training: whether what is tested classifies about as well as what was trained.

    Arguments:
        episode: some tasks that are not test tasks.

    Returns:
        What a reader has to know, if evaluation mode is far behind training mode.
    """
    lowering = _aside(lowering)
    method, way = lowering.method, episode.class_ids.shape[1]
    tested = _predict(lowering, episode, all_tasks=True)
    method.train()
    parts = []
    for t in range(len(episode)):
        task = episode.tasks(t, t + 1) if method.batchable else episode
        with lowering.set_up(episode.query.device), torch.enable_grad():
            parts.append(method.predict(method.adapt(task.support), task.query).detach())
        if not method.batchable:
            break
    trained = torch.cat(parts)
    right, other = (float(accuracy(x.double(), episode.target).mean()) for x in (trained, tested))
    if not far_behind(right, other, way, episode.target.numel()):
        return []
    return [
        f"{BEHIND}: with the same weights {right:.1%} of some other tasks' queries are right in "
        f"training mode and {other:.1%} in evaluation mode, in which a test is (chance is "
        f"{1 / way:.1%}). Running statistics do not follow weights that an inner loop changes "
        "(--backbone-statistics batch)? Or something else that depends on the mode?"
    ]


def far_behind(trained: float, tested: float, way: int, queries: int) -> bool:
    """Whether evaluation mode lost half of what training mode has over chance, beyond noise."""
    chance = 1 / way
    noise = 4 * math.sqrt(2 * chance * (1 - chance) / queries)
    return trained - tested > max(noise, (trained - chance) / 2)


def _alone(lowering: Eager, episode: Episode) -> Episode:
    """The first task of a batch; all of it where tasks are run together in any case."""
    return episode.tasks(0, 1) if lowering.method.batchable else episode


def _losses(lowering: Eager, episode: Episode) -> dict[str, Tensor]:
    title = f"{title_of(lowering.method)}.losses()"
    lowering.method.train()
    with lowering.set_up(episode.query.device), torch.enable_grad(), plugin_errors(title):
        losses = lowering.method.losses(episode).players
    return {f"another loss of player '{name}'": value for name, value in losses.items()}


def _answers(lowering: Eager, episode: Episode) -> dict[str, Tensor]:
    method = lowering.method.eval()
    title = f"{title_of(method)}.predict()"
    with lowering.set_up(episode.query.device), torch.enable_grad(), plugin_errors(title):
        return {"other logits": method.predict(method.adapt(episode.support), episode.query)}


def _require_tasks_independent(
    lowering: Eager,
    episode: Episode,
    call: str,
    found: Callable[[Eager, Episode], dict[str, Tensor]],
) -> None:
    """Hold what a method finds for the first task of a batch against what it finds for it alone.

    An engine that runs task by task hides the difference, and another one, or another number of
    tasks at once, gives other numbers. Where memory holds one task only, nothing is held against
    it.

    Raises:
        PluginError: they differ, in float64 too: rounding can grow in an inner loop.
    """
    method = lowering.method
    if not method.batchable or len(episode) < 2 or lowering.task_chunk == 1:
        return
    for dtype in (episode.query.dtype, torch.float64):
        if dtype != episode.query.dtype:
            lowering = _aside(lowering)
            lowering.method, episode = lowering.method.to(dtype), episode.to(dtype)
        try:
            together, alone = found(lowering, episode), found(lowering, episode.tasks(0, 1))
        except Exception as error:
            if is_out_of_memory(error):
                return
            raise
        apart = [n for n, value in alone.items() if not _near(value, together[n][:1], RELATED)]
        if not apart:
            return
    raise PluginError(
        f"{title_of(method)}.{call} gives {apart[0]} for a task beside another task than for it "
        "alone: results would depend on threads and batches; keep axis 0, the task, out of means "
        "and sums, or declare batchable = False."
    )


def _alike(one: Losses, other: Losses) -> bool:
    return all(_near(value, other.players[name]) for name, value in one.players.items())


def _near(a: Any, b: Any, tolerance: float = ROUNDING) -> bool:
    if a.shape != b.shape:
        return False
    scale = a.detach().abs().amax().clamp_min(1) if a.numel() else 1
    return bool(((a.detach() - b.detach()).abs() <= tolerance * scale).logical_or(a.isnan()).all())


def _aside(lowering: Eager) -> Eager:
    """The same with a copy of the method."""
    other = copy.copy(lowering)
    other.method = copied(lowering.method)
    return other


def _predict(lowering: Eager, episode: Episode, *, all_tasks: bool = False) -> Any:
    training = lowering.method.training
    lowering.method.eval()
    try:
        return (lowering.predict(episode) if all_tasks else lowering.one(episode)).logits
    finally:
        lowering.method.train(training)


@generators_preserved()
def inspect_test(lowering: Eager, episode: Episode) -> list[str]:
    """Look at ``adapt`` and ``predict``, on tasks to learn and to classify.

    Two tasks show whether one influences the other.

    Returns:
        What a reader of the result has to know.

    Raises:
        PluginError: statistics cross tasks, the answers cannot be had again, or they depend on the
            other tasks of a batch, or on the other queries where the method says that they do not.
    """
    lowering, both = _aside(lowering), episode
    episode = _alone(lowering, episode)
    method, answers = lowering.method, []

    def predict() -> None:
        answers.append(_predict(lowering, episode))

    with repeatable(method, "adapt() or predict()", predict):
        require_tasks_apart(method, "predict", predict)
        predict()
    told = note(method, predict)
    predict()
    if not _near(answers[0], answers[-1]):
        raise PluginError(
            f"{title_of(method)} gives other predictions for the same episode the second time; "
            f"{KEYED}, and keep nothing between calls."
        )
    _require_tasks_independent(lowering, both, "predict()", _answers)
    if not method.transductive:
        other = torch.cat([episode.query[:, :1], 0.5 * episode.query[:, 1:].flip(-1, -2)], dim=1)
        changed = _predict(lowering, replace(episode, query=other))
        if not _near(answers[0][:, :1], changed[:, :1], RELATED):
            raise PluginError(
                f"{title_of(method)} says transductive = False, but its answer to a query depends "
                "on the other queries; declare transductive = True, and tables mark its results."
            )
    return [told] if told else []


@generators_preserved()
def inspect_trained(lowering: Eager, episode: Episode, test: Episode) -> None:
    """Whether what the test normalizes by has moved; arguments as :func:`inspect_training`.

    Raises:
        PluginError: it has not.
    """
    lowering = _aside(lowering)
    method = lowering.method

    def losses() -> None:
        with lowering.set_up(episode.query.device), torch.enable_grad():
            method.losses(episode)

    method.train()
    require_moved(method, losses, lambda: _predict(lowering, test))
