"""One run: train, choose by validation, test, record."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fewshot_bench import assembly
from fewshot_bench.config import RunConfig, reconfigure
from fewshot_bench.engine.evaluation import evaluate
from fewshot_bench.engine.flops import flops_per_step
from fewshot_bench.engine.lowering import Eager, choose
from fewshot_bench.engine.observer import Observer, Progress, Silent
from fewshot_bench.engine.training import Plan, Trainer, check_players
from fewshot_bench.engine.weights import load_weights, save_weights
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.method import Method
from fewshot_bench.results.environment import device_name, environment
from fewshot_bench.results.record import SCHEMA_VERSION, new_run_folder, read_record, write_record
from fewshot_bench.results.run_files import (
    empty_timing,
    note_evaluation,
    note_training,
    task_numbers,
    write_scores,
    write_training,
)
from fewshot_bench.sampling import EpisodeSource, digest

EVALUATION_CHUNK = 32  # tasks per call at evaluation; changes no number


@dataclass
class Parts:
    """Everything of a run that is not a number yet."""

    config: RunConfig
    registry: Registry
    progress: Progress
    observers: list[Observer]
    device: torch.device
    data: assembly.Data
    method: Method
    lowering: Eager
    train: EpisodeSource
    validation: EpisodeSource | None
    test: EpisodeSource


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
    folder = new_run_folder(Path(config.runs_dir), _stem(config))
    for observer in parts.observers:
        observer.run_started(config.to_dict())
    record = describe(parts, folder)
    trainer: Trainer | None = None
    try:
        with parts.lowering.running():
            if check_players(parts.method):
                trainer = make_trainer(parts)
                train(parts, trainer, record)
                write_training(folder, trainer)
                save_weights(parts.method, folder)
            test(parts, folder, record)
        record["status"] = "completed"
        write_record(folder, record)
    except BaseException as error:
        _give_up(parts, folder, record, trainer, error)
        raise
    for observer in parts.observers:
        observer.run_ended(record)
    return record


def _give_up(
    parts: Parts,
    folder: Path,
    record: dict[str, Any],
    trainer: Trainer | None,
    error: BaseException,
) -> None:
    """Keep what a broken run reached; a run that did not begin to train leaves no folder."""
    if trainer is None or not trainer.step:
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
    before = read_record(folder)
    config = reconfigure(RunConfig.from_dict(before["config"]), init=None, **changes)
    assembly.check_writable(Path(config.runs_dir))
    parts = prepare(config, progress or Silent(), train_split=False)
    if check_players(parts.method):
        load_weights(parts.method, folder)
    target = new_run_folder(Path(config.runs_dir), _stem(config) + "-eval")
    record = describe(parts, target) | {"evaluated_from": before["id"]}
    record["training"], record["validation"] = before["training"], before["validation"]
    with parts.lowering.running():
        test(parts, target, record)
    record["status"] = "completed"
    if check_players(parts.method):
        save_weights(parts.method, target)
    write_record(target, record)
    return record


def prepare(config: RunConfig, progress: Progress, *, train_split: bool = True) -> Parts:
    """Resolve every name, read the data, build the method; nothing is trained yet."""
    registry = Registry.discover()
    device = assembly.pick_device(config.device)
    observers = [registry.resolve("observers", name).load()() for name in config.observers]
    progress.message(f"reading {config.dataset}")
    data = assembly.load_data(config, registry)
    splits = data.splits

    def source(name: str) -> EpisodeSource:
        return assembly.episodes(getattr(splits, name), config, registry, name, device)

    test_source = source("test")
    if test_source.sampler.length is not None:
        progress.message(
            f"the open plan has {test_source.sampler.length} episodes; no image is used twice"
        )
    task = assembly.shaped(assembly.train_task(config), splits.test, config)
    method = assembly.build(config, registry, task, device)
    method.check_task(assembly.eval_task(config))
    return Parts(
        config,
        registry,
        progress,
        observers,
        device,
        data,
        method,
        choose(config.engine, method, device),
        source("train") if train_split else test_source,
        source("validation") if splits.validation is not None and train_split else None,
        test_source,
    )


def make_trainer(parts: Parts) -> Trainer:
    """The loop over the configured number of steps, with validation and logging attached."""
    config, progress = parts.config, parts.progress
    tasks = config.task_batch * len(parts.method.turns)

    def log(step: int, numbers: dict[str, float]) -> None:
        progress.update(step, tasks=tasks, **numbers)
        for observer in parts.observers:
            observer.train_logged(step, numbers)

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
        for observer in parts.observers:
            observer.evaluation_ended("validation", scores.accuracy.tolist())
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
    )


def train(parts: Parts, trainer: Trainer, record: dict[str, Any]) -> None:
    """Train; put what it took into the record."""
    config = parts.config
    record["timing"]["flops_per_step"] = flops_per_step(
        parts.method, parts.train, trainer.players, config.task_batch
    )
    parts.progress.phase("train", config.steps)
    trainer.run()
    note_training(record, trainer)


def test(parts: Parts, folder: Path, record: dict[str, Any]) -> None:
    """Evaluate on the test split, for the first and only time; write what came out."""
    config, source = parts.config, parts.test
    count = min(config.episodes, source.sampler.length or config.episodes)
    if count < config.episodes:
        record["notes"].append(
            f"{config.episodes} episodes were asked for; the open plan has {count}."
        )
    metrics = {name: parts.registry.resolve("metrics", name).load() for name in config.metrics}
    parts.progress.phase("test", count)
    scores = evaluate(
        parts.lowering,
        source,
        count,
        chunk=EVALUATION_CHUNK,
        metrics=metrics,
        tick=lambda done, accuracy: parts.progress.update(done, accuracy=accuracy),
    )
    for observer in parts.observers:
        observer.evaluation_ended("test", scores.accuracy.tolist())
    record["episodes_digest"] = digest(source, count)
    note_evaluation(record, scores, config.level, parts.method.transductive, source)
    write_scores(folder, scores)


def describe(parts: Parts, folder: Path) -> dict[str, Any]:
    """The record as it stands before anything was trained."""
    config, data = parts.config, parts.data
    things = assembly.named_things(config, parts.registry, parts.method.wants_backbone)
    method_plugin = next(item for item in things if item["kind"] == "methods")
    return {
        "schema_version": SCHEMA_VERSION,
        "status": "running",
        "id": folder.name,
        "command": shlex.join(sys.argv),
        "method": method_plugin["name"],
        "dataset": config.dataset,
        "dataset_digest": data.splits.digest,
        "dataset_licence": data.splits.licence,
        "dataset_source": data.splits.source,
        "split": getattr(data.dataset, "split", data.dataset.splits[0]),
        "train_task": task_numbers(assembly.train_task(config)),
        "task": task_numbers(assembly.eval_task(config)),
        "seed": config.seed,
        "episode_seed": config.episode_seed,
        "preset": config.preset,
        "config": config.to_dict(),
        "parameters": sum(p.numel() for p in parts.method.parameters()),
        "plugin": {k: method_plugin[k] for k in ("distribution", "version")},
        "plugins": things,
        "environment": environment(),
        "device": {"type": parts.device.type, "name": device_name(parts.device)},
        "episodes_digest": None,
        "test": None,
        "validation": None,
        "training": None,
        "timing": empty_timing(),
        "notes": [*data.splits.notes, *config.notes],
        "error": None,
    }


def _stem(config: RunConfig) -> str:
    """The readable part of a run's name; nothing in it can leave the runs folder."""
    name = f"{config.method}-{config.dataset}-{config.way}w{config.shot}s"
    return re.sub(r"[^A-Za-z0-9]+", "-", name)[:60].strip("-").lower()
