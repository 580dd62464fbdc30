"""Checks of what every method has to keep, whatever it declares."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fewshot_bench.config.options import options_of
from fewshot_bench.config.schema import SETTINGS
from fewshot_bench.engine.checkpointing.state import copied
from fewshot_bench.engine.players import check_players
from fewshot_bench.engine.weights import load_weights, save_weights
from fewshot_bench.errors import FewshotBenchError
from fewshot_bench.method import Method, trainable
from fewshot_bench.testing.checks import Fault, NotClaimed
from fewshot_bench.testing.gradients import gradient_error
from fewshot_bench.testing.subject import (
    MethodSubject,
    at_small_size,
    both,
    off,
    predict,
    require_close,
    tensors,
)
from fewshot_bench.utils.generators import generators_used, global_generators

EXACT = 1e-9  # float64: another order of sums, and no more
GRADIENT = 1e-4
STEPS = (1e-5, 1e-6, 1e-4)  # a kink near a weight shows at large steps only


def builds_alike(subject: MethodSubject) -> None:
    """The same seed builds the same weights."""
    one, two = subject.build(seed=3).state_dict(), subject.build(seed=3).state_dict()
    for name, value in one.items():
        equal = torch.equal(value, two[name]) if isinstance(value, Tensor) else value == two[name]
        if not equal:
            raise Fault(
                f"'{name}' differs between two builds with one seed; initialize it with torch's "
                "generator and nothing else."
            )


def options(subject: MethodSubject) -> None:
    """Every keyword of __init__ is an option with a default; presets set options that exist."""
    known = {*SETTINGS, *(option.name for option in options_of(subject.kind))}
    inner = tuple(f"{option.name}_" for option in options_of(subject.kind) if option.method)
    for name in subject.kind.preset_names():
        preset = subject.kind.presets(name, "any", subject.task)
        if preset is not None and not isinstance(preset, Mapping):
            raise Fault(
                f"presets('{name}', ...) gave {type(preset).__name__}; return a dictionary or None."
            )
        for setting in preset or {}:
            if setting not in known and not setting.startswith(("backbone_", *inner)):
                raise Fault(
                    f"preset '{name}' sets '{setting}', which is no option of the method or of "
                    "'fsb run'."
                )
    if subject.kind.presets("quick", "any", subject.task) is None:
        raise Fault("there is no preset 'quick', which is the default; presets() may return {}.")


@both
def shapes(subject: MethodSubject) -> None:
    """adapt gives tensors [T, ...], predict [T, Q, way], losses [T] for each player."""
    method, tasks = subject.build().eval(), 2
    episode = subject.episode(tasks)
    with torch.enable_grad():
        state = method.adapt(episode.support)
        logits = method.predict(state, episode.query)
    for tensor in tensors(state):
        if tensor.shape[:1] != (tasks,):
            raise Fault(
                f"adapt() gave a tensor of shape {tuple(tensor.shape)} for {tasks} tasks; axis 0 "
                "is the task."
            )
    expected = (*episode.query.shape[:2], subject.task.way)
    if logits.shape != expected:
        raise Fault(f"predict() gave {tuple(logits.shape)}; [T, Q, way] is {expected}.")
    losses = method.train().losses(subject.training_episode(tasks))
    for kind, values in (("player", losses.players), ("log", losses.log)):
        for name, value in values.items():
            if value.shape != (tasks,):
                raise Fault(
                    f"losses() gave {tuple(value.shape)} for {kind} '{name}'; it is one number "
                    f"per task, ({tasks},): leave the mean over tasks to the loop."
                )
    missing = sorted(set(check_players(method)) - set(losses.players))
    if missing:
        raise Fault(f"losses() gives no loss for player '{missing[0]}' of players().")


def dtypes(subject: MethodSubject) -> None:
    """Images of float32 and of float64 give logits and losses of the same type."""
    for dtype in (torch.float32, torch.float64):
        method = subject.build().to(dtype)
        found = {"predict()": predict(method, subject.episode(dtype=dtype)).dtype}
        losses = method.train().losses(subject.training_episode(dtype=dtype))
        found |= {f"the loss of '{n}'": value.dtype for n, value in losses.players.items()}
        for where, got in found.items():
            if got != dtype:
                raise Fault(
                    f"{where} is {got} for images of {dtype}; make tensors with the dtype of the "
                    "images (images.new_zeros, images.dtype)."
                )


@both
def finite(subject: MethodSubject) -> None:
    """Logits, losses and logged numbers are finite, and a loss is no number without a gradient."""
    method = subject.build()
    if not bool(predict(method, subject.episode()).isfinite().all()):
        raise Fault("predict() gives NaN or infinity on random images of unit size.")
    losses = method.train().losses(subject.training_episode())
    for name, value in (*losses.players.items(), *losses.log.items()):
        if not bool(value.isfinite().all()):
            raise Fault(f"losses() gives {value.tolist()} for '{name}' before any training.")
    for name in check_players(method):
        if not losses.players[name].requires_grad:
            raise Fault(f"the loss of player '{name}' is detached: nothing would train.")


def repeatable(subject: MethodSubject) -> None:
    """The same episode gives the same numbers, and global generators stay untouched."""
    method = subject.build()
    found = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            before = global_generators()
            logits = predict(method, subject.episode())
            losses = method.train().losses(subject.training_episode()).players
            numbers = torch.cat([logits.flatten(), *(v.detach() for v in losses.values())])
            if used := generators_used(before, global_generators()):
                raise Fault(
                    f"it draws from {used[0]}; draw from fewshot_bench.rng with support.key, or "
                    "results depend on how tasks are batched."
                )
        found.append(numbers)
    require_close(
        found[0], found[1], 0.0, "calling it twice gives other numbers; keep nothing between calls."
    )


@both
def pure_losses(subject: MethodSubject) -> None:
    """losses() changes no parameter, no buffer and no gradient."""
    method = subject.build().train()
    before = copied(method.state_dict())
    method.losses(subject.training_episode())
    for name, value in method.state_dict().items():
        if isinstance(value, Tensor) and not torch.equal(value, before[name]):
            raise Fault(
                f"losses() changed '{name}' by {off(value, before[name]):.3g}; return buffers in "
                "Losses.buffers, and leave parameters to the loop."
            )
    touched = [n for n, p in method.named_parameters() if p.grad is not None]
    if touched:
        raise Fault(f"losses() left a gradient at '{touched[0]}'; use torch.autograd.grad.")


def round_trip(subject: MethodSubject) -> None:
    """Weights written to a file and read into a method of another seed predict the same."""
    one, two = subject.build(seed=1), subject.build(seed=2)
    with tempfile.TemporaryDirectory() as folder:
        save_weights(one, Path(folder))
        load_weights(two, Path(folder))
    require_close(
        predict(one, subject.episode()),
        predict(two, subject.episode()),
        1e-6,
        "something that the seed decides is neither a parameter nor a registered buffer.",
    )


def players(subject: MethodSubject) -> None:
    """Players share no parameter, cover all that is trainable, and stand in turns.

    Where ``trains = False`` is declared there are none.
    """
    method = subject.build()
    try:
        found = check_players(method)
    except FewshotBenchError as error:
        raise Fault(str(error)) from error
    owned = {id(p) for player in found.values() for p in player.parameters.values()}
    lost = [name for name, p in trainable(method).items() if id(p) not in owned]
    if lost and method.trains:
        raise Fault(
            f"'{lost[0]}' ({len(lost)} in all) is trainable and has no player; give it one, or "
            "requires_grad_(False), or say trains = False if nothing is to train."
        )
    inside = {id(p) for p in method.parameters()}
    strange = [n for player in found.values() for n, p in player.parameters.items()
               if id(p) not in inside]  # fmt: skip
    if strange:
        raise Fault(f"'{strange[0]}' has a player but is no parameter of the method.")
    moving = {name for turn in method.turns for name in turn}
    idle = [name for name in found if name not in moving]
    if idle:
        raise Fault(f"player '{idle[0]}' is in none of the turns {method.turns}: it never moves.")


@at_small_size
def gradients(subject: MethodSubject) -> None:
    """Each player's gradient is that of its loss (of the declared surrogate), in float64."""
    method = subject.build()
    worst: dict[str, float] = {}
    for eps in STEPS:
        errors = gradient_error(
            method, subject.training_episode(dtype=torch.float64), eps=eps, samples=2
        )
        worst = {name: min(worst.get(name, float("inf")), e) for name, e in errors.items()}
        if all(error <= GRADIENT for error in worst.values()):
            return
    name = max(worst, key=lambda n: worst[n])
    hint = "A detached or stopped term?" if method.gradient == "exact" else ""
    raise Fault(
        f"the gradient of player '{name}' is off by {worst[name]:.3g} of its size from finite "
        f"differences (at most {GRADIENT:g} is allowed). {hint} Stop gradients with "
        "fewshot_bench.nn.stop and declare gradient = 'surrogate'."
    )


@both
def independent_tasks(subject: MethodSubject) -> None:
    """A batch of tasks gives what one task at a time gives, unless batchable = False."""
    method = subject.build().double()
    if not method.batchable:
        raise NotClaimed("batchable = False: its tasks influence each other.")
    episode = subject.episode(3, dtype=torch.float64)
    told = (
        "one task's result depends on the others; statistics and sums must not cross axis 0 "
        "(TaskBatchNorm, per_task), or declare batchable = False."
    )
    single = [predict(method, episode.tasks(t, t + 1)) for t in range(3)]
    require_close(predict(method, episode), torch.cat(single), EXACT, f"predict(): {told}")
    training = subject.training_episode(3, dtype=torch.float64)
    whole = _losses(method, training)
    parts = [_losses(method, training.tasks(t, t + 1)) for t in range(3)]
    for name, value in whole.items():
        joined = torch.cat([part[name] for part in parts])
        require_close(value, joined, EXACT, f"the loss of '{name}': {told}")


def _losses(method: Method, episode: object) -> dict[str, Tensor]:
    losses = method.train().losses(episode)  # type: ignore[arg-type]
    return {name: value.detach() for name, value in losses.players.items()}


CONTRACT = (
    builds_alike,
    options,
    shapes,
    dtypes,
    finite,
    repeatable,
    pure_losses,
    round_trip,
    players,
    gradients,
    independent_tasks,
)
