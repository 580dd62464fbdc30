"""The training loop that every method shares."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from fewshot_bench.engine.checkpointing.keeper import Keeper
from fewshot_bench.engine.checkpointing.signals import Interrupted
from fewshot_bench.engine.checkpointing.state import Weights, averaged, copied
from fewshot_bench.engine.executors.eager import Eager, Gradients, Packed
from fewshot_bench.engine.executors.graph import (
    Ahead,
    CapturedTurn,
    TurnGraphs,
    make_capturable,
    why_not,
)
from fewshot_bench.engine.finite import SpikeGuard, Watch, numbers_of, watched
from fewshot_bench.engine.hidden import told_of_draws
from fewshot_bench.engine.history import History
from fewshot_bench.engine.memory import within_memory
from fewshot_bench.engine.plan import Plan
from fewshot_bench.engine.players import check_players, make_optimizers
from fewshot_bench.engine.timing import WARM_UP, StepTimer
from fewshot_bench.episode import Episode
from fewshot_bench.errors import Diverged, PluginError
from fewshot_bench.method import Method
from fewshot_bench.rng import global_generators, moved
from fewshot_bench.sampling.base import EpisodeSource
from fewshot_bench.sampling.batches import BatchSource
from fewshot_bench.utils.devices import is_gpu, make_stream, on_stream
from fewshot_bench.utils.torch_private import lerp_each_

Validate = Callable[[int], float]
Log = Callable[[int, dict[str, float]], None]


class Trainer:
    """Trains a method's players on a stream of episodes.

    Arguments:
        method: on its device.
        lowering: runs it; used inside its ``running()`` block.
        source: training episodes; step s, turn r takes the ids of batch s * turns + r.
        unlabeled: unlabeled tasks, for every second step, from the second on.
        plan: how long.
        validate: from the step number to an accuracy; decides which weights are kept.
        log: called at the end of each window with the step and its numbers.
        tell: takes a line on what could not be done as planned.
        keeper: writes checkpoints and hears signals; default: neither.
    """

    def __init__(
        self,
        method: Method,
        lowering: Eager,
        source: EpisodeSource | BatchSource,
        plan: Plan,
        validate: Validate | None = None,
        log: Log | None = None,
        tell: Callable[[str], None] = lambda _: None,
        unlabeled: EpisodeSource | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self.method, self.lowering, self.plan = method, lowering, plan
        self.sources = (source,) if unlabeled is None else (source, unlabeled)
        self.validate, self.log, self.tell = validate, log, tell
        self.keeper = keeper or Keeper()
        self.players = check_players(method)
        self.optimizers = make_optimizers(self.players)
        self.base_rates = {
            name: [group["lr"] for group in optimizer.param_groups]
            for name, optimizer in self.optimizers.items()
        }
        self.averages = {
            name: [p.detach().clone() for p in player.parameters.values()]
            for name, player in self.players.items()
            if player.ema is not None
        }
        self.step, self.began = 0, False
        self.first, self.kept = 0, 0  # step of a checkpoint to go on from; that was kept last
        self.device = source.table.device
        self.timer = StepTimer(self.device, min(WARM_UP, max(0, plan.steps - 1)), len(method.turns))
        self.history = History()
        self.good = self._weights()
        self.best = -math.inf
        self._begin = 0.0
        self._window: list[Gradients] = []
        self._captured = TurnGraphs(method, self.device)
        self.guard = SpikeGuard(plan.skip_spikes) if plan.skip_spikes is not None else None
        self.watch = Watch() if plan.detect_anomaly else None
        # Where numbers are read at once: before the weights move, so that the good ones are kept.
        self._at_once = not is_gpu(self.device) or bool(self.guard or self.watch)
        self._stream = make_stream(self.device)
        self._capture = lowering.graph
        if self._capture:
            reads = "--detect-anomaly" if self.watch else "--skip-spikes" if self.guard else ""
            if reads:
                self._fall_back(f"{reads} reads numbers in every step")
            else:
                self._fall_back(make_capturable(list(self.optimizers.values()), self.device))

    def run(self) -> History:
        """Train to the end of the plan and load the weights that validation chose.

        Raises:
            Diverged: a loss or gradient is not finite. The method then holds the last good
                weights, as it does when the run is interrupted from the keyboard.
        """
        self.keeper.begin(self)
        self._begin, self.began = time.perf_counter() - self.history.seconds, True
        warm = self.first + self.timer.warmup
        spent = self.history.seconds - self.history.warmup_seconds
        try:
            self.method.train()
            with self.keeper.gently():
                while not self._over():
                    self.advance()
                    at_end = self.step == self.plan.steps
                    if at_end or self.step % self.plan.window == 0:
                        self.flush()
                    if self.step == warm:
                        self.history.warmup_seconds = self.seconds() - spent
        except Interrupted:
            self.keeper.save(self)
            self._close()
            raise
        except BaseException:
            self._close()
            raise
        finally:
            self.method.load_state_dict(self.good)
            self.history.seconds = self.seconds()
            if self._capture and not self._captured:  # too few steps for more than the warm-up
                self.lowering.name = "eager"
        return self.history

    def seconds(self) -> float:
        """How long the training has taken, without what was lost between its interruptions."""
        return time.perf_counter() - self._begin

    def _over(self) -> bool:
        """Between two steps: validate, write a checkpoint; whether that was the last step.

        Raises:
            Interrupted: a signal came; a validation that is due is then done another time.
        """
        self.keeper.signals.check()
        every, at_end = self.plan.validate_every, self.step == self.plan.steps
        if self.step > self.kept and (at_end or (every and self.step % every == 0)):
            self.flush()
            self._keep()
        self.keeper.after_step(self)
        return at_end

    def advance(self) -> None:
        """Every turn once: a fresh batch, the gradients of the players that move, their steps."""
        with on_stream(self._stream):
            self._advance()

    def _advance(self) -> None:
        turns, size = self.method.turns, self.plan.task_batch
        k = self.step % len(self.sources)
        for r, turn in enumerate(turns):
            first = (self.step * len(turns) + r) * size
            self._set_rates(turn)
            # Every source was asked before, and every kernel has run.
            warm = max(len(self.sources), self.timer.warmup)
            ready = self._capture and self.step >= self.first + warm
            captured = self._graph_of(r, k, turn) if ready else None
            if captured is not None:
                if not captured.ahead.holds(first):
                    with self.timer.for_several(captured.ahead.turns) as captured.drawn:
                        captured.ahead.draw(first)
                self.timer.start()
                captured.ahead.go_to(first)
                self._window.append(captured.replay())
                self.timer.replayed(captured.marks, captured.drawn)
            else:
                self.timer.start()
                before = None if self.history.drawn else global_generators()
                sample = partial(self.sources[k].batch, range(first, first + size))
                result = self._turn(sample, turn, self.timer.mark)
                if before and (found := moved(before, global_generators())):
                    self._tell_drawn(k, found)
                result.gradients, result.buffers = {}, {}  # what is read later is the numbers
                self._window.append(result)
                if self._capture:
                    self._captured.ran_directly((r, k))
        self.step += 1

    def _turn(
        self, sample: Callable[[], Episode], turn: Sequence[str], phase_ends: Callable[[], None]
    ) -> Gradients:
        """Sample, differentiate, move: what a step is made of, and a graph holds."""
        episode = sample()
        phase_ends()
        with watched(self.watch):
            result = within_memory(
                self.lowering,
                episode,
                lambda part: self.lowering.gradients(part, self.players, turn),
                prefix="--train-",
                tell=self._tell_shrunk,
            )
            result.norms = {n: get_total_norm(g) for n, g in result.gradients.items()}
        phase_ends()
        step = self.step + 1
        if self._at_once:
            self._check(result, step)
        if not (self.guard and self.guard.spikes(numbers_of(result.losses, result.norms), step)):
            self._move(result)
            if self._at_once:
                self._check(result, step)
        phase_ends()
        return result

    def _tell_shrunk(self, line: str) -> None:
        self.history.shrunk_at = self.step + 1
        self.tell(f"step {self.step + 1}: {line}")

    def _tell_drawn(self, k: int, generators: list[str]) -> None:
        """Say, once, that the losses have random numbers of their own, and where."""
        episode = self.sources[k].batch(range(1))
        with self.lowering.set_up(self.device):
            self.history.drawn = told_of_draws(self.method, episode, generators)
        self.tell(f"step {self.step + 1}: {self.history.drawn}")

    def _graph_of(self, r: int, k: int, turn: Sequence[str]) -> CapturedTurn | None:
        """The turn as a CUDA graph; None: to be run directly. If there can be none, say why."""
        size = self.plan.task_batch
        every = len(self.sources) * len(self.method.turns) * size

        def capture() -> CapturedTurn:
            return CapturedTurn(
                lambda sample, ends: self._turn(sample, turn, ends),
                Ahead(self.sources[k], size, every, self.device),
                self.device,
            )

        try:
            return self._captured.of((r, k), capture)
        except (RuntimeError, PluginError) as error:
            self._fall_back(why_not(error))
            return None

    def _fall_back(self, why: str | None) -> None:
        if why is not None:
            self._capture, self.lowering.name = False, "eager"
            self._captured = TurnGraphs(self.method, self.device)  # without their memory
            self.tell(f"engine: eager, because no CUDA graph could be captured: {why}")

    def _set_rates(self, turn: Sequence[str]) -> None:
        for name in turn:
            schedule = self.players[name].schedule
            if schedule is None:
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
            filled = [p for p in parameters if p.numel()]
            result.weights[name] = get_total_norm(filled, math.inf)
            if player.ema is not None:
                lerp_each_(self.averages[name], parameters, 1 - player.ema)
        buffers = dict(self.method.named_buffers())
        for name, proposals in result.buffers.items():
            buffers[name].copy_(proposals.mean(0))

    def _check(self, result: Gradients, step: int) -> None:
        origin = None if self.watch is None else self.watch.told
        for what, found in (
            ("loss", result.losses),
            ("gradient", result.norms),
            ("weight", result.weights),
        ):
            for name, value in found.items():
                if not bool(torch.isfinite(value).all()):
                    raise Diverged(step, name, what, origin)

    def flush(self, tell: bool = True) -> None:
        """Read the window's numbers from the device (the only wait), and ``tell`` the log."""
        self._captured.look_again()
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
        if tell and self.log is not None:
            self.log(self.step, self.history.steps.last())

    def _close(self) -> None:
        """After a fault: record what was reached; with no validation yet, keep what is finite."""
        with suppress(Diverged):
            self.flush()
        current = self._weights()
        if (
            self.step
            and not self.history.best_step
            and all(bool(v.isfinite().all()) for v in current.values() if isinstance(v, Tensor))
        ):
            self.good, self.history.best_step = current, self.step

    def _keep(self) -> None:
        """Validate; keep the weights if they are the best so far (or if nothing judges them)."""
        current = self._weights()
        score = math.inf
        if self.validate is not None:
            training = copied(self.method.state_dict())
            self.method.load_state_dict(current)
            try:
                with self.keeper.at_once():
                    score = self.validate(self.step)
            finally:
                self.method.load_state_dict(training)
            self.history.validation.append((self.step, score))
        if score > self.best or self.validate is None:
            self.best, self.good, self.history.best_step = score, current, self.step
        self.kept = self.step

    def _weights(self) -> Weights:
        """What would be evaluated now: averages in place of weights where a player averages."""
        return averaged(self.method, self.players, self.averages)
