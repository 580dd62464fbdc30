"""The training loop that every method shares."""

import copy
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from fewshot_bench.engine.anomalies import SpikeGuard, Watch
from fewshot_bench.engine.checkpointing import Checkpoint, Checkpointer, Interrupted
from fewshot_bench.engine.executors import Executor, Gradients, graph
from fewshot_bench.engine.executors.base import Packed
from fewshot_bench.engine.hidden_state import unkeyed_draws
from fewshot_bench.engine.memory import within_memory
from fewshot_bench.engine.timing import WARM_UP, Columns, StepTimer
from fewshot_bench.episode import Episode
from fewshot_bench.errors import ConfigError, Diverged, PluginError, RecordError
from fewshot_bench.method import Method, Player, title_of
from fewshot_bench.sampling.base import EpisodeSource
from fewshot_bench.sampling.batches import BatchSource
from fewshot_bench.utils.devices import is_gpu, make_stream, on_stream
from fewshot_bench.utils.generators import generators_used, global_generators, restore_generators
from fewshot_bench.utils.torch_private import lerp_each_

logger = logging.getLogger(__name__)

Weights = dict[str, Any]  # tensors, and what a module's get_extra_state() gives
SAVED = ("step", "validated_step", "best_score", "best_weights")  # of a trainer, as they are


@dataclass(frozen=True)
class Plan:
    steps: int  # meta-steps; each holds every turn of the method once
    task_batch: int  # tasks in the batch of a turn
    validate_every: int = 0  # steps between validations; 0: only at the end
    window: int = 1  # steps between reads of device numbers (losses, times): 1 on a CPU
    # A step is skipped if its loss or gradient norm is over so many times its recent median.
    skip_spikes: float | None = None
    detect_anomaly: bool = False  # look for the operation behind a number that is not finite


@dataclass
class History:
    """The numbers of a training; filled as it runs, so that a broken run has them too."""

    steps: Columns = field(default_factory=Columns)
    validation: list[tuple[int, float]] = field(default_factory=list)
    best_step: int = 0
    seconds: float = 0.0
    warmup_seconds: float = 0.0
    shrunk_at: int = 0  # the last step in which memory was short
    unkeyed: str = ""  # a note on random numbers that no key decides


def check_players(method: Method) -> Mapping[str, Player]:
    """The method's players with what they train; empty if nothing trains.

    PluginError for a parameter with two players, a turn of an unknown player, or players of a
    method with ``trains = False``; ConfigError if only some players have something to train.
    """
    players, title = method.players(), title_of(method)
    gives = f"but players() gives: {', '.join(players)}."
    if players and not method.trains:
        raise PluginError(f"{title} declares trains = False, {gives}")
    owner: dict[nn.Parameter, str] = {}
    own: dict[str, Player] = {}
    for name, player in players.items():
        for parameter_name, parameter in player.parameters.items():
            if owner.setdefault(parameter, name) != name:
                raise PluginError(
                    f"{title}.players(): parameter '{parameter_name}' belongs to both "
                    f"'{owner[parameter]}' and '{name}'."
                )
        moves = {n: p for n, p in player.parameters.items() if p.requires_grad and p.numel()}
        own[name] = replace(player, parameters=moves)
    unknown = [n for turn in method.turns for n in turn if players and n not in players]
    if unknown:
        raise PluginError(f"{title}.turns names player '{unknown[0]}', {gives}")
    idle = [name for name, player in own.items() if not player.parameters]
    if len(idle) == len(players):
        return {}
    if idle:
        raise ConfigError(
            f"nothing to train here for player '{idle[0]}' of {title}: none of its parameters "
            "requires gradients. Give a backbone that trains, or a method without that player."
        )
    return own


def copy_weights(weights: Mapping[str, Any]) -> Weights:
    return {
        name: value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
        for name, value in weights.items()
    }


class Trainer:
    """Trains a method's players on a stream of episodes, in the executor's ``running()`` block.

    Arguments:
        source: training episodes; step s, turn r takes the ids of batch s * turns + r.
        validate: from the step number to an accuracy; decides which weights are the best.
        log: called at the end of each window with the step and its numbers.
        unlabeled: unlabeled tasks, for every second step, from the second on.
        checkpointer: writes checkpoints and handles signals; default: neither.
    """

    def __init__(
        self, method: Method, executor: Executor, source: EpisodeSource | BatchSource, plan: Plan,
        validate: Callable[[int], float] | None = None,
        log: Callable[[int, dict[str, float]], None] | None = None,
        unlabeled: EpisodeSource | None = None, checkpointer: Checkpointer | None = None,
    ) -> None:  # fmt: skip
        self.method, self.executor, self.plan = method, executor, plan
        self.sources = (source,) if unlabeled is None else (source, unlabeled)
        self.validate, self.log = validate, log
        self.checkpointer = checkpointer or Checkpointer()
        self.players = check_players(method)
        try:
            self.optimizers = {
                name: player.optimizer(list(player.parameters.values()))
                for name, player in self.players.items()
            }
        except ValueError as error:  # a rate or factor out of range
            raise ConfigError(f"the optimizer refuses its settings: {error}.") from error
        self.base_rates = {
            name: [group["lr"] for group in optimizer.param_groups]
            for name, optimizer in self.optimizers.items()
        }
        self.averages = {
            name: [p.detach().clone() for p in player.parameters.values()]
            for name, player in self.players.items()
            if player.ema is not None
        }
        self.step, self.started = 0, False
        self.resumed_step, self.validated_step = 0, 0
        self.device = source.table.device
        self.timer = StepTimer(self.device, min(WARM_UP, max(0, plan.steps - 1)), len(method.turns))
        self.history = History()
        self.best_weights, self.best_score = self._weights(), -math.inf
        self._begin = 0.0
        self._window: list[Gradients] = []
        self._captured = graph.TurnGraphs(method, self.device)
        self.guard = SpikeGuard(plan.skip_spikes) if plan.skip_spikes is not None else None
        self.watch = Watch() if plan.detect_anomaly else None
        # Where numbers are read at once: before the weights move, so that the good ones are saved.
        self._at_once = not is_gpu(self.device) or bool(self.guard or self.watch)
        self._stream = make_stream(self.device)
        self._capture = executor.graph
        if self._capture and (self.guard or self.watch):
            option = "--detect-anomaly" if self.watch else "--skip-spikes"
            self._fall_back(f"{option} reads numbers in every step")
        elif self._capture:
            self._fall_back(graph.make_capturable(self.optimizers.values(), self.device))

    def run(self) -> History:
        """Train to the end of the plan and load the weights that validation chose.

        After an exception (Diverged: a number is not finite) these are the last good ones.
        """
        checkpointer = self.checkpointer
        if checkpointer.checkpoint is not None:
            self.restore(checkpointer.checkpoint)
            checkpointer.checkpoint = None
            logger.info("resuming after step %d of %d", self.step, self.plan.steps)
        checkpointer.start(self.step)
        history = self.history
        self._begin, self.started = time.perf_counter() - history.seconds, True
        warm = self.resumed_step + self.timer.warmup
        spent = history.seconds - history.warmup_seconds
        try:
            self.method.train()
            with checkpointer.signals.deferred():  # while weights move
                while not self._over():
                    self.advance()
                    if self.step == self.plan.steps or self.step % self.plan.window == 0:
                        self.flush()
                    if self.step == warm:
                        history.warmup_seconds = self.seconds() - spent
        except BaseException as error:
            if isinstance(error, Interrupted):
                checkpointer.save(self.step, self.state)
            self._close()
            raise
        finally:
            self.method.load_state_dict(self.best_weights)
            history.seconds = self.seconds()
            if self._capture and not self._captured:  # too few steps for more than the warm-up
                self.executor.name = "eager"
        return history

    def seconds(self) -> float:
        """How long the training has taken, without what was lost between its interruptions."""
        return time.perf_counter() - self._begin

    def _over(self) -> bool:
        """Between two steps: validate, write a checkpoint; whether that was the last step."""
        # If a signal came, a validation that is due is done after the resume.
        self.checkpointer.signals.check()
        every, at_end = self.plan.validate_every, self.step == self.plan.steps
        if self.step > self.validated_step and (at_end or (every and self.step % every == 0)):
            self.flush()
            self._validate()
        self.checkpointer.after_step(self.step, at_end, self.state)
        return at_end

    def advance(self) -> None:
        """Every turn once: a fresh batch, the gradients of the players that move, their steps."""
        turns, size = self.method.turns, self.plan.task_batch
        k = self.step % len(self.sources)
        # Every source was asked before, and every kernel has run.
        warm = self.resumed_step + max(len(self.sources), self.timer.warmup)
        with on_stream(self._stream):
            for r, turn in enumerate(turns):
                first = (self.step * len(turns) + r) * size
                self._set_rates(turn)
                ready = self._capture and self.step >= warm
                captured = self._graph_of(r, k, turn) if ready else None
                if captured is None:
                    self._window.append(self._run_directly(r, k, range(first, first + size)))
                    continue
                if not captured.ahead.holds(first):
                    begin = self.timer.clock.now()
                    captured.ahead.draw(first)
                    captured.drawn = begin, self.timer.clock.now(), captured.ahead.turns
                self.timer.start()
                captured.ahead.go_to(first)
                self._window.append(captured.replay())
                self.timer.replayed(captured.marks, captured.drawn)
        self.step += 1

    def _run_directly(self, r: int, k: int, ids: range) -> Gradients:
        self.timer.start()
        before = None if self.history.unkeyed else global_generators()
        sample = partial(self.sources[k].batch, ids)
        result = self._turn(self.method.turns[r], sample, self.timer.mark)
        if before and (found := generators_used(before, global_generators())):
            episode = self.sources[k].batch(range(1))
            with self.executor.set_up(self.device):
                self.history.unkeyed = unkeyed_draws(self.method, episode, found)
            logger.warning("step %d: %s", self.step + 1, self.history.unkeyed)
        result.gradients, result.buffers = {}, {}  # what is read later is the numbers
        if self._capture:
            self._captured.ran_directly((r, k))
        return result

    def _turn(
        self, turn: Sequence[str], sample: Callable[[], Episode], phase_ends: Callable[[], None]
    ) -> Gradients:
        """Sample, differentiate, update: the part of a step that a CUDA graph holds."""
        episode, executor, step = sample(), self.executor, self.step + 1
        phase_ends()
        at_once = executor.at_once(len(episode))

        def gradients(part: Episode) -> Gradients:
            return executor.gradients(part, self.players, turn)

        with self.watch or nullcontext():
            try:
                result = within_memory(executor, episode, gradients, prefix="--train-")
            finally:
                if executor.at_once(len(episode)) < at_once:
                    self.history.shrunk_at = step
            result.norms = {n: get_total_norm(g) for n, g in result.gradients.items()}
        phase_ends()
        if self._at_once:
            self._check(result, step)
        if not self._is_spike(result, step):
            self._move(result)
            if self._at_once:
                self._check(result, step)
        phase_ends()
        return result

    def _is_spike(self, result: Gradients, step: int) -> bool:
        if self.guard is None:
            return False
        sizes = {f"loss {name}": float(result.losses[name].mean()) for name in result.norms}
        sizes |= {f"gradient {name}": float(norm) for name, norm in result.norms.items()}
        return self.guard.spikes(sizes, step)

    def _graph_of(self, r: int, k: int, turn: Sequence[str]) -> graph.CapturedTurn | None:
        """The turn as a CUDA graph; None: to be run directly. If there can be none, log why."""
        size, device = self.plan.task_batch, self.device
        every = len(self.sources) * len(self.method.turns) * size

        def capture() -> graph.CapturedTurn:
            ahead = graph.Ahead(self.sources[k], size, every, device)
            return graph.CapturedTurn(partial(self._turn, turn), ahead, device)

        try:
            return self._captured.get((r, k), capture)
        except (RuntimeError, PluginError) as error:
            self._fall_back(graph.capture_error(error))
            return None

    def _fall_back(self, why: str | None) -> None:
        if why is not None:
            self._capture, self.executor.name = False, "eager"
            self._captured = graph.TurnGraphs(self.method, self.device)  # without their memory
            logger.warning("engine: eager, because no CUDA graph could be captured: %s", why)

    def _set_rates(self, turn: Sequence[str]) -> None:
        for name in turn:
            if (schedule := self.players[name].schedule) is None:
                continue
            factor = schedule(self.step, self.plan.steps)
            groups = self.optimizers[name].param_groups
            for group, rate in zip(groups, self.base_rates[name], strict=True):
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate * factor)
                else:
                    group["lr"] = rate * factor

    @torch.no_grad()
    def _move(self, result: Gradients) -> None:
        for name, gradients in result.gradients.items():
            player, optimizer = self.players[name], self.optimizers[name]
            parameters = list(player.parameters.values())
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            if player.clip is not None:
                clip_grads_with_norm_(parameters, player.clip, result.norms[name])
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            result.weights[name] = get_total_norm(parameters, math.inf)
            if player.ema is not None:
                lerp_each_(self.averages[name], parameters, 1 - player.ema)
        buffers = dict(self.method.named_buffers())
        for name, proposals in result.buffers.items():
            buffers[name].copy_(proposals.mean(0))

    def _check(self, result: Gradients, step: int) -> None:
        origin = None if self.watch is None else self.watch.origin
        kinds = {"loss": result.losses, "gradient": result.norms, "weight": result.weights}
        for what, found in kinds.items():
            for name, value in found.items():
                if not bool(torch.isfinite(value).all()):
                    raise Diverged(step, name, what, origin)

    def flush(self, log: bool = True) -> None:
        """Read the window's numbers from the device (the only wait), and call ``self.log``."""
        self._captured.compare_again()
        if not self._window:
            return
        self.timer.flush()
        turns = len(self.method.turns)
        first = self.step - len(self._window) // turns + 1
        packed = Packed(self._window)
        window = packed.unpacked(packed.values.cpu())
        for i in range(0, len(window), turns):
            step = first + i // turns
            row: dict[str, float] = {"step": step}
            for result in window[i : i + turns]:
                self._check(result, step)
                row |= {f"loss_{name}": float(v.mean()) for name, v in result.losses.items()}
                row |= {f"gradient_norm_{name}": float(v) for name, v in result.norms.items()}
                row |= {name: float(v.mean()) for name, v in result.log.items()}
            self.history.steps.append(row)
        self._window = []
        if log and self.log is not None:
            self.log(self.step, self.history.steps.last())

    def _close(self) -> None:
        """After a fault: read the last numbers; without a validation, save what is finite."""
        with suppress(Diverged):
            self.flush()
        current = self._weights()
        finite = (bool(v.isfinite().all()) for v in current.values() if isinstance(v, Tensor))
        if self.step and not self.history.best_step and all(finite):
            self.best_weights, self.history.best_step = current, self.step

    def _validate(self) -> None:
        """Validate; save the weights if they are the best so far (or if there is no validation)."""
        current = self._weights()
        score = math.inf
        if self.validate is not None:
            training = copy_weights(self.method.state_dict())
            self.method.load_state_dict(current)
            try:
                with self.checkpointer.signals.deferred(False):  # nothing moves meanwhile
                    score = self.validate(self.step)
            finally:
                self.method.load_state_dict(training)
            self.history.validation.append((self.step, score))
        if score > self.best_score or self.validate is None:
            self.best_score, self.best_weights, self.history.best_step = score, current, self.step
        self.validated_step = self.step

    def _weights(self) -> Weights:
        """What would be evaluated now: averages in place of weights where a player averages."""
        weights = copy_weights(self.method.state_dict())
        names = {id(p): n for n, p in self.method.named_parameters()}
        for player, values in self.averages.items():
            parameters = self.players[player].parameters.values()
            for parameter, value in zip(parameters, values, strict=True):
                weights[names[id(parameter)]] = value.clone()
        return weights

    def state(self) -> dict[str, Any]:
        """Everything that decides how the training continues; device tensors are not read yet."""
        self.flush(log=False)
        history, at_once = self.history, self.executor.at_once(self.plan.task_batch)
        return {name: getattr(self, name) for name in SAVED} | {
            "weights": dict(self.method.state_dict()),
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
            "averages": self.averages,
            "history": {
                **vars(history), "steps": history.steps.arrays(), "seconds": self.seconds(),
            },
            "guard": self.guard.state() if self.guard else None,
            # How many tasks fit, where memory was short.
            "at_once": at_once if history.shrunk_at else None,
            "timer": self.timer.state(),
            "random": global_generators(),
        }  # fmt: skip

    @torch.no_grad()
    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint of a trainer that was made as this one, else RecordError."""
        try:
            state = checkpoint.unpacked(self.device)
            self.method.load_state_dict(state["weights"])
            for name, optimizer in state["optimizers"].items():
                own = self.optimizers[name]
                own.load_state_dict(_in_form_of(own, optimizer))
            for name, averages in state["averages"].items():
                for mine, saved in zip(self.averages[name], averages, strict=True):
                    mine.copy_(saved)
            for name in SAVED:
                setattr(self, name, state[name])
            self.resumed_step = self.step
            self.history = History(**state["history"])
            self.history.steps = Columns(state["history"]["steps"])
            if self.guard and state["guard"]:
                self.guard.restore(state["guard"])
            if state["at_once"]:
                self.executor.limit(state["at_once"])
            self.timer.restore(state["timer"], self.step)
            restore_generators(state["random"])
        except (KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            text = " ".join(str(error).split())
            raise RecordError(
                f"the checkpoint does not fit {type(self.method).__name__} as it is built now "
                f"({type(error).__name__}: {text})."
            ) from error


def _in_form_of(optimizer: Optimizer, saved: Mapping[str, Any]) -> dict[str, Any]:
    """A saved state in the form that an optimizer has here: the machine that saved it may differ.

    Rates and numbers of steps are tensors on the device where a graph holds them, else the host's.
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
