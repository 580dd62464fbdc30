"""A run from its first step, or from a checkpoint, to its record."""

import copy
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fewshot_bench.config.options import split_dataset
from fewshot_bench.config.resolve import with_changes
from fewshot_bench.config.schema import RESUMABLE, Every
from fewshot_bench.data.overlap import write_seen
from fewshot_bench.engine import inspection
from fewshot_bench.engine.checkpointing import Checkpointer, Interrupted, Signals, Store
from fewshot_bench.engine.evaluation import Scores, evaluate
from fewshot_bench.engine.inspection import inspect_test
from fewshot_bench.engine.memory import Cost, cost_of_step, warn_of_cost, within_memory
from fewshot_bench.engine.pictures import Pictures, start_pictures
from fewshot_bench.engine.profiling import PROFILED, profile_steps
from fewshot_bench.engine.training import Plan, Trainer, check_players
from fewshot_bench.engine.weights import check_unmoved, save_weights
from fewshot_bench.episode import Episode
from fewshot_bench.errors import ConfigError, FewshotBenchError, UnknownName
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.hooks.single_file import DISTRIBUTION as FILE_PLUGIN
from fewshot_bench.hooks.single_file import only_typed
from fewshot_bench.method import Method
from fewshot_bench.results import record as records
from fewshot_bench.results.record import build, read_record, resume_command, write_record
from fewshot_bench.runs import prepare as preparation
from fewshot_bench.runs.context import Progress, RunContext
from fewshot_bench.runs.identity import RunIndex, origin_of, resumable
from fewshot_bench.runs.prepare import PreparedRun, describe, new_method, prepare, stem
from fewshot_bench.runs.resume import WeightsCheck, add_notes, recorded_config, resumed_record
from fewshot_bench.sampling.base import EpisodeSource
from fewshot_bench.sampling.inspection import check_redrawn
from fewshot_bench.utils.devices import is_gpu
from fewshot_bench.utils.inputs import check_weights

logger = logging.getLogger(__name__)

IF_EXISTS = ("resume", "reuse", "fresh")
PROFILE = "profile.txt"
# Tasks per call at evaluation; changes no number where tasks are independent. Hundreds fill a GPU,
# and a call costs the host as much whatever their number.
EVALUATION_CHUNK, GPU_CHUNK = 32, 200
COMPARED = 16  # tasks, in training and in evaluation mode
TWO = range(2)  # tasks: one of them may influence the other


def run_or_reuse(context: RunContext, if_exists: str) -> tuple[dict[str, Any], Path]:
    """The record of a configuration, and its folder.

    ``if_exists``, for a run of the same configuration, data, code and versions in the runs folder:
    ``resume`` reuses it if it is finished and resumes it if it was interrupted, ``reuse`` only
    reuses a finished one, ``fresh`` runs again.
    """
    if if_exists not in IF_EXISTS:
        choices = ", ".join(IF_EXISTS)
        raise ConfigError(f"--if-exists: expected one of {choices}, got '{if_exists}'.")
    config, runs_dir = context.config, Path(context.config.runs_dir)
    if if_exists != "fresh" and runs_dir.is_dir():
        # The path after the data set's name may have been typed in another way.
        plain = replace(config, dataset=split_dataset(context.registry, config.dataset)[0])
        folders = sorted(runs_dir.glob(f"{stem(plain).rpartition('-')[0]}-*"))
        found = RunIndex(folders).find(context, watched=True)
        if (done := found.finished) is not None:
            logger.info(f"Reusing finished run '{done.folder}'; --if-exists fresh runs it again.")
            return done.record, done.folder
        if (folder := found.unfinished) is not None:
            if if_exists == "resume":
                logger.info(f"Resuming '{folder}'; use --if-exists fresh to start over.")
                return resume(folder, context, trust_code=True, **resumable(config)), folder
            logger.info(f"'{folder}' did not finish; to resume it: {resume_command(folder)}")
        elif found.near is not None:
            logger.info(f"{found.near}; this is a new run.")
    record = run(context)
    return record, runs_dir / record["id"]


def run(context: RunContext) -> dict[str, Any]:
    """Train, evaluate, and return the record, which is also written to the run's folder.

    A loss that stops being finite gives a record of status ``failed`` and raises; Ctrl-C, SIGTERM,
    SIGUSR1 and SIGHUP give one of status ``interrupted`` with a checkpoint, and raise.

    Raises:
        FewshotBenchError: a setting, a data file or a plugin is at fault.
        Diverged: training did.
        Interrupted: a ``KeyboardInterrupt``, after the record is written; says how to resume.
    """
    runs_dir = Path(context.config.runs_dir)
    preparation.check_writable(runs_dir)
    with Signals() as signals:
        prepared = prepare(context)
        folder = records.new_run_folder(runs_dir, stem(context.config))
        with records.run_lock(folder):
            return _Run(prepared, folder, describe(prepared, folder), signals).execute()


def resume(
    run_folder: str | Path, context: RunContext | None = None, *, progress: Progress | None = None,
    allow_changes: bool = False, trust_code: bool = False, **settings: Any,
) -> dict[str, Any]:  # fmt: skip
    """Resume an interrupted run from its newest complete checkpoint; a finished one stays as it is.

    Arguments:
        context: of the command, whose registry, progress and data are used; default: a new one.
        allow_changes: resume also where data, code or versions differ from those at the start.
        trust_code: import a file that the run's record names, as after ``fsb run ./file.py:Name``.
        settings: ``RESUMABLE`` ones, in place of the record's, whose ``cache_dir`` does not count.

    Raises:
        UnknownName: a setting that decided the run's numbers cannot change now.
        RecordError: no run, one that another process writes, or one of other data, code or
            versions.
        FewshotBenchError, Interrupted: as :func:`run`.
    """
    for name in settings:
        if name not in RESUMABLE:
            hint = "Everything else stays as at the start; fewshot_bench.run starts another run."
            raise UnknownName("option", name, RESUMABLE, hint)
    folder = records.folder_of(run_folder)
    read_record(folder)
    with Signals() as signals, records.run_lock(folder):
        before = read_record(folder)
        if before["status"] == "completed":
            check_weights(folder, before)
            return before
        registry = context.registry if context else Registry.discover()
        with only_typed((), trust_code):
            config = recorded_config(registry, before)
            config = with_changes(config, registry, {"cache_dir": None, **settings})
            own = context.with_config(config) if context else RunContext(config, registry, progress)
            prepared = prepare(own)
        record = resumed_record(prepared, folder, before, allow_changes=allow_changes)
        return _Run(prepared, folder, record, signals, resumed=True).execute()


@dataclass
class _Run:
    """A run in its folder, from a record that says nothing of training yet."""

    run: PreparedRun
    folder: Path
    record: dict[str, Any]
    signals: Signals
    resumed: bool = False
    trainer: Trainer | None = None

    def execute(self) -> dict[str, Any]:
        try:
            self._execute()
        except BaseException as error:
            self._save_partial(error)
            raise
        self.run.hooks.run_finished(record=self.record)
        return self.record

    def _execute(self) -> None:
        run, folder, record, config = self.run, self.folder, self.record, self.run.config
        trains = bool(check_players(run.method))
        record["seen"] = write_seen(folder, run.seen)
        write_record(folder, record)
        about = {"run": record["id"], "config": record["config"], "origin": origin_of(record)}
        store = Store(folder, config.keep_checkpoints, about)
        every, resumes = Every.parse(config.checkpoint_every), self.resumed and trains
        checkpointer = Checkpointer(store, every, self.signals, resumes, run.hooks)
        step = checkpointer.load()
        run.hooks.run_started(config=config.to_dict(), folder=folder, resumed_from=step)
        if config.profile and trains and not (folder / PROFILE).exists():
            _profile(run, folder)
        weights_check = WeightsCheck(run)
        with run.executor.running():
            if not trains:
                add_notes(record, *inspection.untrained(run.method, _other_seed(run)))
            else:
                shown = run.method, run.validation, run.test, folder
                pictures = start_pictures(*shown) if config.pictures else None
                self.trainer = make_trainer(run, pictures, checkpointer, weights_check)
                train(run, self.trainer, record)
                if pictures is not None and run.validation is None:  # else validation saved them
                    pictures.save(config.steps)
                build.write_training(folder, self.trainer)
            weights_check.check()
            record["weights"] = save_weights(run.method, folder)
            if not trains and run.validation is not None:  # for choosing settings
                how = config.level, run.method.transductive, run.validation
                result = build.result_of(_validate(run, 0), *how)
                record["validation"] = {"best_step": None, **result}
                logger.info(
                    f"validation accuracy {result['accuracy']:.2%}; choose settings by this"
                )
            test(run, folder, record, self.signals.check)
            check_unmoved(run.method, record["weights"])
        record["status"] = "completed"
        write_record(folder, record)
        store.prune(1)

    def _save_partial(self, error: BaseException) -> None:
        """Save what an ended run reached; one that trained nothing leaves no folder."""
        record, folder = self.record, self.folder
        trainer = self.trainer if self.trainer is not None and self.trainer.started else None
        if trainer is None and not self.resumed:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, Interrupted):
                error.args = (f"{error}; nothing was trained yet, so nothing was saved",)
            return
        interrupted = isinstance(error, KeyboardInterrupt) or trainer is None
        record["status"] = "interrupted" if interrupted else "failed"
        record["error"] = str(error) or type(error).__name__
        try:
            if trainer is not None:
                build.note_training(record, trainer)
                build.write_training(folder, trainer)
                record["weights"] = save_weights(self.run.method, folder)
            write_record(folder, record)
        except FewshotBenchError as second:  # a full disk must not hide why the run ended
            logger.info(f"not all partial results could be written: {second}")
        if isinstance(error, Interrupted):
            trust = any(plugin["distribution"] == FILE_PLUGIN for plugin in record["plugins"])
            how = resume_command(folder) + " --trust-code" * trust
            error.args = (f"{error}; to resume: {how}",)
        else:
            logger.info(f"{record['status']}; partial results saved to {folder}")


def evaluation_chunk(run: PreparedRun) -> int:
    """Tasks per call of an evaluation, the same for a run and whatever evaluates it again."""
    return GPU_CHUNK if is_gpu(run.context.device) and run.method.batchable else EVALUATION_CHUNK


def make_trainer(
    run: PreparedRun, pictures: Pictures | None = None, checkpointer: Checkpointer | None = None,
    weights_check: WeightsCheck | None = None,
) -> Trainer:  # fmt: skip
    """The loop over the configured number of steps, with validation and logging attached."""
    config, progress = run.config, run.context.progress
    tasks = config.task_batch * len(run.method.turns)
    sources = [s for s in (run.train, run.unlabeled) if s is not None]

    def log(step: int, numbers: dict[str, float]) -> None:
        progress.update(step, tasks=tasks, **numbers)
        run.hooks.train_logged(step=step, metrics=numbers)
        source = sources[(step - 1) % len(sources)]
        if isinstance(source, EpisodeSource) and run.hooks.implemented("episodes_sampled"):
            ids = range((step - 1) * tasks, step * tasks)
            run.hooks.bind(split="train").sampled(ids, source.indices(ids))

    def validate(step: int) -> float:
        if weights_check is not None and not weights_check.checked:  # early in a long training
            weights_check.check()
        accuracy = float(_validate(run, step).accuracy.mean())
        logger.info(f"step {step}: validation accuracy {accuracy:.2%}")
        if pictures is not None:
            pictures.save(step)
        return accuracy

    window = 50 if is_gpu(run.context.device) else 1
    faults = config.skip_spikes, config.detect_anomaly
    plan = Plan(config.steps, config.task_batch, config.validate_every, window, *faults)
    more = validate if run.validation is not None else None, log, run.unlabeled, checkpointer
    return Trainer(run.method, run.executor, run.train, plan, *more)


def train(run: PreparedRun, trainer: Trainer, record: dict[str, Any]) -> None:
    """Train, with checks before and after; times and notes go into the record."""
    config, executor = run.config, run.executor

    def costs(task: Episode) -> Cost:
        batch = config.task_batch
        return cost_of_step(run.method, executor, run.train, trainer.players, batch, task)

    add_notes(record, *_checked_before(run))
    cost = within_memory(executor, run.train.batch(range(1)), costs, prefix="--train-")
    record["timing"]["flops_per_step"] = cost.flops
    record["timing"]["memory_estimate_bytes"] = cost.memory_bytes
    warn_of_cost(cost, executor, config.task_batch, run.context.device)
    checkpoint = trainer.checkpointer.checkpoint
    run.context.progress.phase("train", config.steps, checkpoint.step if checkpoint else 0)
    trainer.run()
    build.note_training(record, trainer)
    if isinstance(others := run.validation or run.train, EpisodeSource):
        add_notes(record, *inspection.compare_modes(executor, others.batch(range(COMPARED))))
    tested = _held_out(run)
    inspection.inspect_trained(executor, run.train.batch(range(1)), tested)
    if (other := _other_seed(run)) is not None:
        add_notes(record, *inspection.left_random(executor, _untrained(run), other, tested))


def test(run: PreparedRun, folder: Path, record: dict[str, Any], check: Callable[[], None]) -> None:
    """Evaluate the split that the record names; write scores and add the result to the record.

    ``check`` is called between two chunks of episodes, and may raise.
    """
    config, source, part, progress = run.config, run.test, record["part"], run.context.progress
    count = min(config.episodes, source.sampler.length or config.episodes)
    if (asked := config.episodes) > count:
        record["notes"].append(f"{asked} episodes were requested; the open plan has {count}.")
    inspected = partial(inspect_test, run.executor)
    add_notes(record, *within_memory(run.executor, _two(source), inspected))
    progress.phase(part, count)

    def tick(done: int, accuracy: float) -> None:
        check()
        progress.update(done, accuracy=accuracy)

    hooks = run.hooks.bind(split=part, step=config.steps if run.method.players() else 0)
    how: dict[str, Any] = {"chunk": evaluation_chunk(run), "metrics": run.metrics, "hooks": hooks}
    scores = evaluate(run.executor, source, count, tick=tick, **how)
    assert run.drawn is not None
    title = run.context.registry.resolve("samplers", config.sampling).title
    check_redrawn(run.drawn, scores.class_ids, scores.confusion.sum(-1), title)
    record["episodes_digest"] = run.drawn.digest
    transductive, metrics = run.method.transductive, run.metrics
    build.note_evaluation(record, scores, config.level, transductive, source, metrics)
    build.write_scores(folder, scores, source.table.group_count.cpu().numpy())
    records.write_classes(folder, run.context.data.content.classes)


def _validate(run: PreparedRun, step: int) -> Scores:
    assert run.validation is not None
    count, chunk = run.config.validation_episodes, evaluation_chunk(run)
    hooks = run.hooks.bind(split="validation", step=step)
    return evaluate(run.executor, run.validation, count, chunk=chunk, hooks=hooks)


def _profile(run: PreparedRun, folder: Path) -> None:
    """Profile a few steps of a copy, which leaves the run's numbers alone."""
    method = copy.deepcopy(run.method)
    executor = preparation.choose_executor(run.context, method, run.context.device)
    plan = Plan(PROFILED, run.config.task_batch)
    with executor.running():
        table = profile_steps(Trainer(method, executor, run.train, plan), folder)
    records.write_atomically(folder / PROFILE, table + "\n")
    logger.info(f"the most expensive operations (all of them: {folder / 'trace.json'})")
    for line in table.splitlines():
        logger.info(line)


def _checked_before(run: PreparedRun) -> list[str]:
    """Notes on losses and predictions of two tasks, before hours are spent on them."""
    executor, tested = run.executor, _held_out(run)
    within_memory(executor, tested, partial(inspect_test, executor))
    inspected = partial(inspection.inspect_training, executor, test=tested)
    return within_memory(executor, run.train.batch(TWO), inspected, prefix="--train-")


def _other_seed(run: PreparedRun) -> Method | None:
    """The method of another seed, which shows what in it is random; None where --init decides."""
    return None if run.config.init else _untrained(run, seed=run.config.seed + 1)


def _untrained(run: PreparedRun, **changes: Any) -> Method:
    context = run.context.with_config(replace(run.config, **changes))
    return new_method(context, run.method.task, torch.device("cpu"))


def _held_out(run: PreparedRun) -> Episode:
    """Tasks to learn and to classify; test tasks only where there are no others."""
    return _two(run.validation or run.test)


def _two(source: EpisodeSource) -> Episode:
    """The first two episodes, or the one that an open plan has."""
    return source.batch(TWO if source.sampler.length != 1 else range(1))
