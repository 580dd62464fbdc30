"""Checks of a method at run time, for faults that its results would not reveal.

One task is run a few times. The result is an error where the number would be wrong, and a note for
the screen and the record where it could not be reproduced.
"""

import copy
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fewshot_bench.engine.executors import Eager, Executor
from fewshot_bench.engine.hidden_state import (
    KEYED,
    UNREPEATABLE,
    copy_of,
    repeatable,
    require_separate_tasks,
)
from fewshot_bench.episode import Episode
from fewshot_bench.errors import PluginError, is_out_of_memory, plugin_errors
from fewshot_bench.method import Losses, Method, accuracy, title_of
from fewshot_bench.nn import TaskBatchNorm
from fewshot_bench.nn.norm import observed
from fewshot_bench.utils.generators import generators_preserved, generators_used, global_generators

UNTRAINED, RANDOM = "nothing to train here", "random weights"
BEHIND = "evaluation mode is far behind training mode"
RELATED = 1e-2  # as ROUNDING, for the answer to a query among other queries
ROUNDING = 1e-3  # of the largest number; a GPU may add up in another order the second time
Layers = Mapping[str, TaskBatchNorm]


@generators_preserved()
def inspect_training(executor: Executor, episode: Episode, test: Episode) -> list[str]:
    """Check ``losses`` on two training tasks; ``test``: a task to learn and to classify.

    Returns notes for a reader of the result. PluginError if statistics cross tasks, or running ones
    never move, or a task's loss depends on the other tasks of its batch.
    """
    executor, both = _on_copy(executor), episode
    episode = executor.first_task(episode)
    method = executor.method.train()
    found: list[Losses] = []

    def losses() -> None:
        found.append(_losses(executor, episode))

    before = global_generators()
    require_separate_tasks(method, "losses", losses)
    layers = _running(method)
    with observed(method, len(episode)) as collected:
        trained = _run(layers, losses, training=True)
    hidden = {name: layers[name] for name in trained if f"{name}.running_mean" not in collected}
    if hidden and (tested := _run(hidden, lambda: _predict(executor, test), training=False)):
        raise PluginError(_never_moves(method, min(tested)))
    if generators_used(before, global_generators()):
        return []  # the loop reports global generators
    if not all(_near(v, found[1].players[name]) for name, v in found[0].players.items()):
        return [
            f"{UNREPEATABLE}: {title_of(method)}.losses() gives other losses for the same episode "
            f"the second time; {KEYED}, and store nothing between calls"
        ]

    def each(executor: Executor, episode: Episode) -> dict[str, Tensor]:
        executor.method.train()
        players = _losses(executor, episode).players
        return {f"another loss of player '{name}'": value for name, value in players.items()}

    _require_tasks_independent(executor, both, "losses()", each)
    return []


@generators_preserved()
def inspect_test(executor: Executor, episode: Episode) -> list[str]:
    """Check ``adapt`` and ``predict`` on two tasks. Returns notes for a reader of the result.

    PluginError if statistics cross tasks, the answers are not reproducible, or they depend on the
    other tasks of a batch, or on the other queries where the method says that they do not.
    """
    executor, both = _on_copy(executor), episode
    episode = executor.first_task(episode)
    method, answers = executor.method, list[Tensor]()

    def predict() -> None:
        answers.append(_predict(executor, episode))

    with repeatable(method, "adapt() or predict()", predict):
        require_separate_tasks(method, "predict", predict)
        predict()
    left = _unmeasured(method)
    unmeasured = _run(left, predict, training=False) if left else set()
    predict()
    if not _near(answers[0], answers[-1]):
        raise PluginError(
            f"{title_of(method)} gives other predictions for the same episode the second time; "
            f"{KEYED}, and store nothing between calls."
        )

    def each(executor: Executor, episode: Episode) -> dict[str, Tensor]:
        executor.method.eval()
        return {"other logits": _logits(executor, episode)}

    _require_tasks_independent(executor, both, "predict()", each)
    if not method.transductive:
        other = torch.cat([episode.query[:, :1], 0.5 * episode.query[:, 1:].flip(-1, -2)], dim=1)
        changed = _predict(executor, replace(episode, query=other))
        if not _near(answers[0][:, :1], changed[:, :1], RELATED):
            raise PluginError(
                f"{title_of(method)} says transductive = False, but its answer to a query depends "
                "on the other queries; declare transductive = True, and tables mark its results."
            )
    if not unmeasured:
        return []
    return [
        f"{len(unmeasured)} layers (the first: '{min(unmeasured)}') normalize by mean 0 and "
        "variance 1, which nothing measured: they were never run in training mode"
    ]


@generators_preserved()
def inspect_trained(executor: Executor, episode: Episode, test: Episode) -> None:
    """After training: PluginError if statistics that a test uses never moved.

    A method can hide every pass of a layer (``nn.unobserved``), or set its momentum to 0; it then
    trains with the statistics of its batches and is tested with mean 0 and variance 1.
    """
    executor = _on_copy(executor)
    method = executor.method.train()
    if not (left := _unmeasured(method)):
        return
    tested = _run(left, lambda: _predict(executor, test), training=False)
    if both := tested & _run(left, lambda: _losses(executor, episode), training=True):
        raise PluginError(_never_moves(method, min(both)))


def untrained(method: Method, other: Method | None) -> list[str]:
    """Notes on a method that nothing trains; ``other``: of another seed, None for given weights."""
    notes, title = [], title_of(method)
    parameters = any(p.numel() for p in method.parameters())
    if parameters or method.wants_backbone:
        why = f"no parameter of {title} requires gradients"
        if not parameters:
            why = f"{title} has no parameters"
        elif not method.players():
            why = f"players() of {title} is empty"
        notes.append(f"{UNTRAINED}: {why}; it is evaluated as it is")
    if other is not None and (names := _seeded(method, other)):
        notes.append(_random_note(method, names, "nothing trains them"))
    return notes


@generators_preserved()
def left_random(executor: Executor, first: Method, other: Method, episode: Episode) -> list[str]:
    """Notes on random weights that a training left as they were and predictions depend on.

    ``first``: the method as it was before the training, which is changed here; ``other``: the same
    of another seed.
    """
    method = executor.method
    now, initial = _numbers(method), _numbers(first)
    left = [name for name in _seeded(first, other) if _same(now[name], initial[name])]
    if not left:
        return []
    first.to(episode.query.device).load_state_dict(method.state_dict())
    plain = Eager(first, precision=executor.precision, task_chunk=executor.task_chunk)
    before, values, others = _predict(plain, episode), _numbers(first), _numbers(other)
    with torch.no_grad():
        for name in left:
            values[name].copy_(others[name])
    if _near(before, _predict(plain, episode)):
        return []
    why = "the training left them as they were; do they get a gradient?"
    return [_random_note(method, left, why)]


def _numbers(method: Method) -> dict[str, Tensor]:
    return {**dict(method.named_parameters()), **dict(method.named_buffers())}


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.to(other).nan_to_num(), other.nan_to_num())


def _seeded(method: Method, other: Method) -> list[str]:
    others = _numbers(other)
    return [name for name, value in _numbers(method).items() if not _same(value, others[name])]


def _random_note(method: Method, names: list[str], what: str) -> str:
    own = any(not name.startswith("backbone.") for name in names)
    count = sum(_numbers(method)[name].numel() for name in names)
    return (
        f"{RANDOM}: {'the method' if own else 'the backbone'} has random weights "
        f"({count:,} numbers come from the seed), and {what}"
    )


def of_weights(note: str) -> bool:
    """Whether a note of a record is about its weights, however they are evaluated."""
    return note.startswith((UNTRAINED, RANDOM, BEHIND, UNREPEATABLE))


@generators_preserved()
def compare_modes(executor: Executor, episode: Episode) -> list[str]:
    """After training: a note if evaluation mode classifies far worse than training mode."""
    executor = _on_copy(executor)
    method, way = executor.method, episode.class_ids.shape[1]
    tested = _predict(executor, episode, all_tasks=True)
    method.train()
    tasks = [episode]
    if method.batchable:
        tasks = [episode.tasks(t, t + 1) for t in range(len(episode))]
    trained = torch.cat([_logits(executor, task).detach() for task in tasks])
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


def _require_tasks_independent(
    executor: Executor, episode: Episode, call: str,
    found: Callable[[Executor, Episode], dict[str, Tensor]],
) -> None:  # fmt: skip
    """Raise PluginError if what is ``found`` for a task depends on the other tasks of its batch.

    An engine that runs task by task hides that. They have to differ in float64 too: rounding can
    grow in an inner loop. Where memory holds one task only, nothing is compared.
    """
    method = executor.method
    if not method.batchable or len(episode) < 2 or executor.task_chunk == 1:
        return
    for dtype in (episode.query.dtype, torch.float64):
        if dtype != episode.query.dtype:
            executor = _on_copy(executor)
            executor.method, episode = executor.method.to(dtype), episode.to(dtype)
        try:
            together, alone = found(executor, episode), found(executor, episode.tasks(0, 1))
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


def _near(a: Tensor, b: Tensor, tolerance: float = ROUNDING) -> bool:
    if a.shape != b.shape:
        return False
    scale = a.detach().abs().amax().clamp_min(1) if a.numel() else 1
    return bool(((a.detach() - b.detach()).abs() <= tolerance * scale).logical_or(a.isnan()).all())


def _on_copy(executor: Executor) -> Executor:
    other = copy.copy(executor)
    other.method = copy_of(executor.method)
    return other


def _losses(executor: Executor, episode: Episode) -> Losses:
    title = f"{title_of(executor.method)}.losses()"
    with executor.set_up(episode.query.device), torch.enable_grad(), plugin_errors(title):
        return executor.method.losses(episode)


def _logits(executor: Executor, episode: Episode) -> Tensor:
    """All tasks in one call, in the mode that the method is in."""
    method, title = executor.method, f"{title_of(executor.method)}.predict()"
    with executor.set_up(episode.query.device), torch.enable_grad(), plugin_errors(title):
        return method.predict(method.adapt(episode.support), episode.query)


def _predict(executor: Executor, episode: Episode, *, all_tasks: bool = False) -> Tensor:
    """In evaluation mode: of the first task, or of all."""
    training = executor.method.training
    executor.method.eval()
    try:
        run = executor.predict if all_tasks else executor.predict_first
        return run(episode).logits
    finally:
        executor.method.train(training)


def _run(layers: Layers, call: Callable[[], object], *, training: bool) -> set[str]:
    """Names of the layers that a call runs in training (or in evaluation) mode."""
    seen: set[str] = set()

    def note(name: str, layer: nn.Module, _: Any) -> None:
        if layer.training == training:
            seen.add(name)

    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_pre_hook(partial(note, name)).remove)
        call()
    return seen


def _running(method: Method) -> Layers:
    return {
        name: layer
        for name, layer in method.named_modules()
        if isinstance(layer, TaskBatchNorm) and layer.statistics == "running"
    }


def _unmeasured(method: Method) -> Layers:
    """Those of them whose statistics are still the first ones: mean 0 and variance 1."""
    return {
        name: layer
        for name, layer in _running(method).items()
        if not bool(layer.running_mean.any()) and bool((layer.running_var == 1).all())
    }


def _never_moves(method: Method, layer: str) -> str:
    return (
        f"{title_of(method)}: the running statistics of '{layer}' never move, and a test would "
        "normalize by mean 0 and variance 1: losses() runs it in training mode inside "
        "nn.unobserved() only, or its momentum is 0. Let the passes of real images count."
    )
