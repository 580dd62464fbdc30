"""What a training is at the end of a step: everything that decides how it goes on."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from fewshot_bench.engine.checkpointing.store import Saved
from fewshot_bench.engine.executors.im2col import Columns
from fewshot_bench.errors import RecordError
from fewshot_bench.method import Method, Player
from fewshot_bench.utils.devices import gpu_generator_states, set_gpu_generator_states

if TYPE_CHECKING:
    from fewshot_bench.engine.training import Trainer

Weights = dict[str, Any]  # tensors, and what a module's get_extra_state() gives


def copied(weights: Mapping[str, Any]) -> Weights:
    """A copy of a ``state_dict()``."""
    return {
        name: value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
        for name, value in weights.items()
    }


def averaged(
    method: Method, players: Mapping[str, Player], averages: Mapping[str, list[Tensor]]
) -> Weights:
    """The weights of a method, with the averages of those players that have some in their place."""
    weights = copied(method.state_dict())
    names = {id(p): n for n, p in method.named_parameters()}
    for player, values in averages.items():
        for parameter, value in zip(players[player].parameters.values(), values, strict=True):
            weights[names[id(parameter)]] = value.clone()
    return weights


def state_of(trainer: Trainer) -> dict[str, Any]:
    """The state of a trainer between two steps; nothing in it is read from the device yet.

    Training episodes are a pure function of the step's number, so that this is where the sampler
    stands.
    """
    trainer.flush(tell=False)
    history = trainer.history
    return {
        "step": trainer.step,
        "weights": dict(trainer.method.state_dict()),
        "optimizers": {name: o.state_dict() for name, o in trainer.optimizers.items()},
        "averages": trainer.averages,
        "best": {"weights": trainer.good, "score": trainer.best, "step": history.best_step},
        "kept": trainer.kept,
        "history": {
            "steps": history.steps.arrays(),
            "validation": history.validation,
            "seconds": trainer.seconds(),
            "warmup_seconds": history.warmup_seconds,
            "shrunk_at": history.shrunk_at,
        },
        "guard": trainer.guard.state() if trainer.guard else None,
        # How many tasks fit, where memory was short.
        "at_once": trainer.lowering.at_once(trainer.plan.task_batch) if history.shrunk_at else None,
        "timer": trainer.timer.state(),
        "random": random_states(),
    }


def restore(trainer: Trainer, saved: Saved) -> None:
    """Put the state of a checkpoint into a trainer that was made as the one it is of.

    Raises:
        RecordError: it is of another method.
    """
    try:
        _restore(trainer, saved.unpacked(trainer.device))
    except (KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        text = " ".join(str(error).split())
        raise RecordError(
            f"the checkpoint does not fit {type(trainer.method).__name__} as it is built now "
            f"({type(error).__name__}: {text})."
        ) from error


@torch.no_grad()
def _restore(trainer: Trainer, state: Mapping[str, Any]) -> None:
    trainer.method.load_state_dict(state["weights"])
    for name, optimizer in state["optimizers"].items():
        own = trainer.optimizers[name]
        own.load_state_dict(_in_form_of(own, optimizer))
    for name, averages in state["averages"].items():
        for mine, saved in zip(trainer.averages[name], averages, strict=True):
            mine.copy_(saved)
    best, history = state["best"], state["history"]
    trainer.good, trainer.best = best["weights"], best["score"]
    trainer.kept = state["kept"]
    trainer.step = trainer.first = state["step"]
    trainer.history.best_step = best["step"]
    trainer.history.steps = Columns.of(history["steps"])
    trainer.history.validation = [(step, score) for step, score in history["validation"]]
    trainer.history.seconds = history["seconds"]
    trainer.history.warmup_seconds = history["warmup_seconds"]
    trainer.history.shrunk_at = history["shrunk_at"]
    if trainer.guard and state["guard"]:
        trainer.guard.restore(state["guard"])
    if state["at_once"]:
        trainer.lowering.hold(state["at_once"])
    trainer.timer.restore(state["timer"], trainer.step)
    set_random_states(state["random"])


def _in_form_of(optimizer: Optimizer, saved: Mapping[str, Any]) -> dict[str, Any]:
    """A saved state in the form that an optimizer has here.

    Where a graph may hold its steps, rates and numbers of steps are tensors on the device; else
    they are the host's. The machine that saved it may have been of the other kind.
    """
    if "capturable" not in optimizer.defaults:
        return dict(saved)
    groups = []
    for own, group in zip(optimizer.param_groups, saved["param_groups"], strict=True):
        rate = group["lr"]
        if isinstance(own["lr"], Tensor):
            rate = torch.as_tensor(rate, dtype=own["lr"].dtype, device=own["lr"].device)
        elif isinstance(rate, Tensor):
            rate = float(rate)
        groups.append({**group, "lr": rate, "capturable": own["capturable"]})
    on_host = {i for group in groups if not group["capturable"] for i in group["params"]}
    state = dict(saved["state"])
    for i in on_host & state.keys():
        if isinstance(step := state[i].get("step"), Tensor):
            state[i] = {**state[i], "step": step.cpu()}
    return {**saved, "state": state, "param_groups": groups}


def random_states() -> dict[str, Any]:
    """Of the generators of torch, on every device, NumPy and Python.

    Methods draw from keys and use none of these; a plugin that does goes on with its numbers.
    """
    drawn: Any = np.random.get_state(legacy=True)
    _, keys, *rest = drawn
    return {
        "cpu": torch.get_rng_state(),
        "cuda": gpu_generator_states(),
        "numpy": [keys.astype(np.int64), *rest],
        "python": random.getstate(),
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Put :func:`random_states` back; those of devices that are not here are left out."""
    torch.set_rng_state(states["cpu"])
    set_gpu_generator_states(states["cuda"])
    keys, *rest = states["numpy"]
    np.random.set_state(("MT19937", keys.astype(np.uint32), *rest))
    random.setstate(states["python"])
