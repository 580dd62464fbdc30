"""One run: train, choose by validation, test, record."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

from fewshot_bench import assembly
from fewshot_bench.config import RunConfig, reconfigure
from fewshot_bench.defaults import as_recorded
from fewshot_bench.engine.cost import advice, cost_of_step
from fewshot_bench.engine.evaluation import evaluate
from fewshot_bench.engine.observer import Progress, Silent
from fewshot_bench.engine.pictures import Pictures
from fewshot_bench.engine.profiling import PROFILED, profile_steps
from fewshot_bench.engine.players import check_players
from fewshot_bench.engine.training import Plan, Trainer
from fewshot_bench.engine.weights import load_weights, save_weights
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.parts import Parts, choose_lowering, describe, prepare, stem
from fewshot_bench.results.record import FILE as RECORD
from fewshot_bench.results.record import new_run_folder, read_record, write_record
from fewshot_bench.results.run_files import (
    note_evaluation,
    note_training,
    write_scores,
    write_training,
)
from fewshot_bench.results.tables import write_atomically
from fewshot_bench.sampling import digest

EVALUATION_CHUNK = 32  # tasks per call at evaluation; changes no number


def run(config: RunConfig, progress: Progress | None = None) -> dict[str, Any]:
    """Do the configured run and return its record, which is also written to its folder.

    A loss that stops being finite gives a record of status ``failed`` and raises; Ctrl-C gives one
    of status ``interrupted`` and raises.

    Raises:
        FewshotBenchError: a setting, a data file or a plugin is at fault.
        Diverged: training did.
        KeyboardInterrupt: after the record is written.
    """
    assembly.check_writable(Path(config.runs_dir))
    parts = prepare(config, progress or Silent())
    folder = new_run_folder(Path(config.runs_dir), stem(config))
    record = describe(parts, folder)
    trainer: Trainer | None = None
    try:
        parts.observers.follow(folder)
        parts.observers.tell("run_started", config.to_dict())
        if config.profile and check_players(parts.method):
            _profile(parts, folder)
        with parts.lowering.running():
            if check_players(parts.method):
                trainer = make_trainer(parts, _pictures(parts, folder))
                train(parts, trainer, record)
                write_training(folder, trainer)
                save_weights(parts.method, folder)
            test(parts, folder, record)
        record["status"] = "completed"
        write_record(folder, record)
    except BaseException as error:
        _give_up(parts, folder, record, trainer, error)
        raise
    parts.observers.tell("run_ended", record)
    return record


def _give_up(
    parts: Parts,
    folder: Path,
    record: dict[str, Any],
    trainer: Trainer | None,
    error: BaseException,
) -> None:
    """Keep what a broken run reached; one that did not begin to train leaves no folder."""
    if trainer is None or not trainer.began:
        shutil.rmtree(folder, ignore_errors=True)
        return
    record["status"] = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
    record["error"] = str(error) or type(error).__name__
    note_training(record, trainer)
    write_training(folder, trainer)
    save_weights(parts.method, folder)
    write_record(folder, record)
    parts.progress.message(f"{record['status']}; what was reached stands in {folder}")


def evaluate_run(
    run_folder: str | Path, progress: Progress | None = None, **changes: Any
) -> dict[str, Any]:
    """Evaluate a finished run's weights again: other episodes, task or data.

    Arguments:
        run_folder: the folder of a run.
        changes: options of ``fsb run`` with underscores (``way``, ``episodes``, ``dataset``, ...).

    Returns:
        A record of its own, with ``evaluated_from`` naming the run; also written.
    """
    folder = Path(run_folder)
    folder = folder.parent if folder.name == RECORD else folder
    before = read_record(folder)
    changes = {"init": None, "observers": (), "profile": False, "pictures": False, **changes}
    meant = as_recorded(Registry.discover(), before["config"], before["plugins"])
    config = reconfigure(RunConfig.from_dict(meant), **changes)
    assembly.check_writable(Path(config.runs_dir))
    parts = prepare(config, progress or Silent(), train_split=False)
    if check_players(parts.method):
        load_weights(parts.method, folder)
    target = new_run_folder(Path(config.runs_dir), stem(config) + "-eval")
    record = describe(parts, target) | {"evaluated_from": before["id"]}
    record["training"], record["validation"] = before["training"], before["validation"]
    try:
        with parts.lowering.running():
            test(parts, target, record)
        record["status"] = "completed"
        if check_players(parts.method):
            save_weights(parts.method, target)
        write_record(target, record)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return record


def _pictures(parts: Parts, folder: Path) -> Pictures | None:
    """What keeps the method's pictures, where they are asked for; keeps those before training."""
    if not parts.config.pictures:
        return None
    if parts.validation is None:
        parts.progress.message("--pictures: these data have no validation task to draw")
        return None
    task = parts.validation.batch(range(1))
    pictures = Pictures(parts.method, task, parts.validation.table.pixel_range, folder)
    if not pictures.keep(0):
        parts.progress.message(f"--pictures: {parts.config.method} draws none")
        return None
    return pictures


def make_trainer(parts: Parts, pictures: Pictures | None = None) -> Trainer:
    """The loop over the configured number of steps, with validation and logging attached."""
    config, progress = parts.config, parts.progress
    tasks = config.task_batch * len(parts.method.turns)

    def log(step: int, numbers: dict[str, float]) -> None:
        progress.update(step, tasks=tasks, **numbers)
        parts.observers.tell("train_logged", step, numbers)

    def validate(step: int) -> float:
        assert parts.validation is not None
        scores = evaluate(
            parts.lowering,
            parts.validation,
            config.validation_episodes,
            chunk=EVALUATION_CHUNK,
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
            window=1 if parts.device.type == "cpu" else 50,
        ),
        validate if parts.validation is not None else None,
        log,
        progress.message,
        parts.unlabelled,
    )


def train(parts: Parts, trainer: Trainer, record: dict[str, Any]) -> None:
    """Train; put what it took into the record."""
    config = parts.config
    cost = cost_of_step(
        parts.method, parts.lowering, parts.train, trainer.players, config.task_batch
    )
    record["timing"]["flops_per_step"] = cost.flops
    record["timing"]["memory_estimate_bytes"] = cost.memory_bytes
    if (line := advice(cost, parts.lowering, config.task_batch, parts.device)) is not None:
        parts.progress.message(line)
    parts.progress.phase("train", config.steps)
    trainer.run()
    note_training(record, trainer)


def _profile(parts: Parts, folder: Path) -> None:
    """Profile a few steps of a copy, which leaves the run's numbers alone."""
    method = copy.deepcopy(parts.method)
    lowering = choose_lowering(parts.config, method, parts.device, parts.progress)
    plan = Plan(PROFILED, parts.config.task_batch)
    with lowering.running():
        table = profile_steps(Trainer(method, lowering, parts.train, plan), folder)
    write_atomically(folder / "profile.txt", table + "\n")
    parts.progress.message(f"the dearest operations (all of them: {folder / 'trace.json'})")
    for line in table.splitlines():
        parts.progress.message(line)


def test(parts: Parts, folder: Path, record: dict[str, Any]) -> None:
    """Evaluate on the test split, for the first and only time; write what came out."""
    config, source = parts.config, parts.test
    count = min(config.episodes, source.sampler.length or config.episodes)
    if count < config.episodes:
        record["notes"].append(
            f"{config.episodes} episodes were asked for; the open plan has {count}."
        )
    parts.progress.phase("test", count)
    scores = evaluate(
        parts.lowering,
        source,
        count,
        chunk=EVALUATION_CHUNK,
        metrics=parts.metrics,
        tick=lambda done, accuracy: parts.progress.update(done, accuracy=accuracy),
    )
    parts.observers.tell("evaluation_ended", "test", scores.accuracy.tolist())
    record["episodes_digest"] = digest(source, count)
    note_evaluation(record, scores, config.level, parts.method.transductive, source)
    write_scores(folder, scores, source.table.group_count.cpu().numpy())
