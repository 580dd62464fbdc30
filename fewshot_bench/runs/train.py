"""One run: train, choose by validation, test, record."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fewshot_bench.runs import build, inspection
from fewshot_bench.runs.identity import HERE, origin_of
from fewshot_bench.config.resolve import RunConfig, reconfigure
from fewshot_bench.data.overlap import write_seen
from fewshot_bench.config.presets import as_recorded
from fewshot_bench.utils.devices import is_gpu
from fewshot_bench.engine.checkpointing.store import Store
from fewshot_bench.engine.cost import advice, cost_of_step
from fewshot_bench.config.interval import Every
from fewshot_bench.engine.evaluation import evaluate
from fewshot_bench.engine.checkpointing.signals import Interrupted, Signals
from fewshot_bench.engine.checkpointing.keeper import Keeper
from fewshot_bench.engine.memory import within_memory
from fewshot_bench.engine.observer import Progress, Silent
from fewshot_bench.engine.pictures import Pictures, begin
from fewshot_bench.engine.plan import Plan
from fewshot_bench.engine.players import check_players
from fewshot_bench.engine.profiling import PROFILED, profile_steps
from fewshot_bench.engine.training import Trainer
from fewshot_bench.engine.weights import check_unmoved, save_weights
from fewshot_bench.errors import FewshotBenchError, UnknownName
from fewshot_bench.hooks.single_file import DISTRIBUTION as FILE_PLUGIN
from fewshot_bench.hooks.single_file import only_typed
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.runs.context import Parts, choose_lowering, describe, prepare, stem
from fewshot_bench.results.record.class_names import write_classes
from fewshot_bench.results.record.io import FILE as RECORD
from fewshot_bench.results.record.io import (
    held,
    new_run_folder,
    read_record,
    resume_command,
    write_record,
)
from fewshot_bench.results.record.files import (
    note_evaluation,
    note_training,
    write_scores,
    write_training,
)
from fewshot_bench.results.tables import write_atomically
from fewshot_bench.runs.scoring import note_drawn, validate_untrained
from fewshot_bench.runs.resume import Twin, finished, taken_up

PROFILE = "profile.txt"
# Tasks per call at evaluation; changes no number where tasks are independent. Hundreds fill a GPU,
# and a call costs the host as much whatever their number.
EVALUATION_CHUNK, GPU_CHUNK = 32, 200


def evaluation_chunk(parts: Parts) -> int:
    """Tasks per call of an evaluation, the same for a run and whatever evaluates it again."""
    alone = is_gpu(parts.device) and parts.method.batchable
    return GPU_CHUNK if alone else EVALUATION_CHUNK


def run(config: RunConfig, progress: Progress | None = None) -> dict[str, Any]:
    """Do the configured run and return its record, which is also written to its folder.

    A loss that stops being finite gives a record of status ``failed`` and raises; Ctrl-C, SIGTERM,
    SIGUSR1 and SIGHUP give one of status ``interrupted`` with a checkpoint, and raise.

    Raises:
        FewshotBenchError: a setting, a data file or a plugin is at fault.
        Diverged: training did.
        Interrupted: a ``KeyboardInterrupt``, after the record is written; says how to go on.
    """
    build.check_writable(Path(config.runs_dir))
    with Signals() as signals:
        parts = prepare(config, progress or Silent())
        folder = new_run_folder(Path(config.runs_dir), stem(config))
        with held(folder):
            return _Going(parts, folder, describe(parts, folder), signals).go()


def resume(
    run_folder: str | Path,
    progress: Progress | None = None,
    *,
    allow_changes: bool = False,
    trust_code: bool = False,
    **here: Any,
) -> dict[str, Any]:
    """Go on with a run that was broken off, from its newest checkpoint that is whole.

    Arguments:
        run_folder: the folder of a run. One that is finished stays as it is.
        allow_changes: also go on if data, code or versions are others than the run began with.
        trust_code: import a file that the run's record names, as after ``fsb run ./file.py:Name``.
        here: settings of ``fewshot_bench.runs.identity.HERE``, in place of the record's: where data and
            cache are, the device, how often a checkpoint is written. A record's word on folders
            to write to does not count.

    Returns:
        The record; but for times, what the unbroken run would have given.

    Raises:
        UnknownName: a setting that decided the run's numbers cannot change now.
        RecordError: no run, one that another process writes, or one of other data, code or
            versions.
        FewshotBenchError, Interrupted: as :func:`run`.
    """
    for name in here:
        if name not in HERE:
            hint = "All else stays as the run began; fewshot_bench.run begins another."
            raise UnknownName("option", name, HERE, hint)
    folder = Path(run_folder)
    folder = folder.parent if folder.name == RECORD else folder
    read_record(folder)
    with Signals() as signals, held(folder):
        before = read_record(folder)
        if before["status"] == "completed":
            return finished(folder, before)
        with only_typed((), trust_code):
            meant = as_recorded(Registry.discover(), before)
            config = reconfigure(RunConfig.from_dict(meant), **{"cache_dir": None, **here})
            parts = prepare(config, progress or Silent())
        record = taken_up(parts, folder, before, allow_changes=allow_changes)
        return _Going(parts, folder, record, signals, again=True).go()


class _Going:
    """A run from its first step, or from a checkpoint, to its end.

    Arguments:
        parts: of the run.
        folder: of the run; this process is the one that writes it.
        record: as it stands before anything was trained.
        signals: that end it early.
        again: it was begun before.
    """

    def __init__(
        self,
        parts: Parts,
        folder: Path,
        record: dict[str, Any],
        signals: Signals,
        again: bool = False,
    ) -> None:
        self.parts, self.folder, self.record = parts, folder, record
        self.signals, self.again = signals, again
        about = {"run": record["id"], "config": record["config"], "origin": origin_of(record)}
        self.store = Store(folder, parts.config.keep_checkpoints, about)
        self.trainer: Trainer | None = None

    def go(self) -> dict[str, Any]:
        """Do it; see :func:`run`."""
        try:
            self._go()
        except BaseException as error:
            self._give_up(error)
            raise
        self.parts.observers.tell("run_ended", self.record)
        return self.record

    def _go(self) -> None:
        parts, folder, record = self.parts, self.folder, self.record
        trains = bool(check_players(parts.method))
        record["seen"] = write_seen(folder, parts.seen)
        write_record(folder, record)
        every = Every.parse(parts.config.checkpoint_every)
        keeper = Keeper(self.store, every, self.signals, self.again and trains)
        parts.observers.follow(folder, keeper.look(parts.progress.message))
        parts.observers.tell("run_started", parts.config.to_dict())
        if parts.config.profile and trains and not (folder / PROFILE).exists():
            _profile(parts, folder)
        twin = Twin(parts)
        with parts.lowering.running():
            if not trains:
                inspection.without_training(parts, record)
            else:
                pictures = None
                if parts.config.pictures:
                    tell = parts.progress.message
                    pictures = begin(parts.method, parts.validation, parts.test, folder, tell)
                self.trainer = make_trainer(parts, pictures, keeper, twin)
                train(parts, self.trainer, record)
                if pictures is not None and parts.validation is None:  # else validation kept them
                    pictures.keep(parts.config.steps)
                write_training(folder, self.trainer)
            twin.check()
            record["weights"] = save_weights(parts.method, folder)
            if not trains and parts.validation is not None:
                validate_untrained(parts, parts.validation, record, evaluation_chunk(parts))
            test(parts, folder, record, self.signals.check)
            check_unmoved(parts.method, record["weights"])
        record["status"] = "completed"
        write_record(folder, record)
        self.store.prune(1)

    def _give_up(self, error: BaseException) -> None:
        """Keep what a broken run reached; one that did not begin to train leaves no folder."""
        trainer, record, folder = self.trainer, self.record, self.folder
        interrupted = isinstance(error, KeyboardInterrupt)
        began = trainer is not None and trainer.began
        if not began and not self.again:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, Interrupted):
                error.args = (f"{error}; nothing was trained yet, and nothing is kept",)
            return
        record["status"] = "interrupted" if interrupted or not began else "failed"
        record["error"] = str(error) or type(error).__name__
        try:
            if trainer is not None and began:
                note_training(record, trainer)
                write_training(folder, trainer)
                record["weights"] = save_weights(self.parts.method, folder)
            write_record(folder, record)
        except FewshotBenchError as second:  # a full disk must not hide why the run ended
            self.parts.progress.message(f"not all that was reached could be written: {second}")
        if isinstance(error, Interrupted):
            words = any(thing["distribution"] == FILE_PLUGIN for thing in record["plugins"])
            how = resume_command(folder) + (" --trust-code" if words else "")
            error.args = (f"{error}; go on with: {how}",)
        else:
            self.parts.progress.message(f"{record['status']}; what was reached stands in {folder}")


def make_trainer(
    parts: Parts,
    pictures: Pictures | None = None,
    keeper: Keeper | None = None,
    twin: Twin | None = None,
) -> Trainer:
    """The loop over the configured number of steps, with validation and logging attached."""
    config, progress = parts.config, parts.progress
    tasks = config.task_batch * len(parts.method.turns)

    def log(step: int, numbers: dict[str, float]) -> None:
        progress.update(step, tasks=tasks, **numbers)
        parts.observers.tell("train_logged", step, numbers)

    def validate(step: int) -> float:
        assert parts.validation is not None
        if twin is not None:
            twin.first_look()
        scores = evaluate(
            parts.lowering,
            parts.validation,
            config.validation_episodes,
            chunk=evaluation_chunk(parts),
        )
        accuracy = float(scores.accuracy.mean())
        progress.message(f"step {step}: validation accuracy {accuracy:.2%}")
        parts.observers.tell("evaluation_ended", "validation", scores.accuracy.tolist())
        if pictures is not None:
            pictures.keep(step)
        return accuracy

    return Trainer(
        parts.method,
        parts.lowering,
        parts.train,
        Plan(
            config.steps,
            config.task_batch,
            config.validate_every,
            window=50 if is_gpu(parts.device) else 1,
            skip_spikes=config.skip_spikes,
            detect_anomaly=config.detect_anomaly,
        ),
        validate if parts.validation is not None else None,
        log,
        progress.message,
        parts.unlabeled,
        keeper,
    )


def train(parts: Parts, trainer: Trainer, record: dict[str, Any]) -> None:
    """Train; put what it took into the record."""
    config = parts.config
    inspection.before_training(parts, record)
    cost = within_memory(
        parts.lowering,
        parts.train.batch(range(1)),
        lambda task: cost_of_step(
            parts.method, parts.lowering, parts.train, trainer.players, config.task_batch, task
        ),
        prefix="--train-",
    )
    record["timing"]["flops_per_step"] = cost.flops
    record["timing"]["memory_estimate_bytes"] = cost.memory_bytes
    if (line := advice(cost, parts.lowering, config.task_batch, parts.device)) is not None:
        parts.progress.message(line)
    goes_on = trainer.keeper.saved
    parts.progress.phase("train", config.steps, goes_on.step if goes_on else 0)
    trainer.run()
    note_training(record, trainer)
    inspection.after_training(parts, record)


def _profile(parts: Parts, folder: Path) -> None:
    """Profile a few steps of a copy, which leaves the run's numbers alone."""
    method = copy.deepcopy(parts.method)
    lowering = choose_lowering(parts.config, method, parts.device, parts.progress)
    plan = Plan(PROFILED, parts.config.task_batch)
    with lowering.running():
        table = profile_steps(Trainer(method, lowering, parts.train, plan), folder)
    write_atomically(folder / PROFILE, table + "\n")
    parts.progress.message(f"the most expensive operations (all of them: {folder / 'trace.json'})")
    for line in table.splitlines():
        parts.progress.message(line)


def test(parts: Parts, folder: Path, record: dict[str, Any], check: Callable[[], None]) -> None:
    """Evaluate on the test split, or the part that the record names; write what came out.

    ``check`` is called between two chunks of episodes, and may raise.
    """
    config, source, part = parts.config, parts.test, record["part"]
    count = min(config.episodes, source.sampler.length or config.episodes)
    if count < config.episodes:
        record["notes"].append(
            f"{config.episodes} episodes were asked for; the open plan has {count}."
        )
    inspection.before_test(parts, record)
    parts.progress.phase(part, count)

    def tick(done: int, accuracy: float) -> None:
        check()
        parts.progress.update(done, accuracy=accuracy)

    scores = evaluate(
        parts.lowering,
        source,
        count,
        chunk=evaluation_chunk(parts),
        metrics=parts.metrics,
        tick=tick,
    )
    note_drawn(parts, scores, record)
    parts.observers.tell("evaluation_ended", part, scores.accuracy.tolist())
    note_evaluation(record, scores, config.level, parts.method.transductive, source)
    write_scores(folder, scores, source.table.group_count.cpu().numpy())
    write_classes(folder, parts.data.content.classes)
