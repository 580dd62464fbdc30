"""Runs that nobody ran, written as the runner writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fewshot_bench.config.resolve import configure
from fewshot_bench.results.record import SCHEMA_VERSION, new_run_folder, write_record, write_table
from fewshot_bench.results.record.model import Timing
from fewshot_bench.results.stats import student_interval
from fewshot_bench.results.training import OF_TRAINING

EPISODES = 40
PARTS = {"support": "shot", "query": "query", "unlabeled": "unlabeled"}
OPTIONS = {"image_size": 28, "train_rotations": True}
CONFIG = configure("protonet").to_dict() | {"dataset_options": OPTIONS, "sources": {}}
CLASS_USE = {
    "classes": 20, "used": 20, "effective": 20.0, "top": 5, "top_share": 0.25, "uneven": False
}  # fmt: skip


def scores_of(seed: int, mean: float = 0.9) -> np.ndarray:
    """Made-up accuracies of episodes of 75 queries."""
    return np.random.default_rng(seed).binomial(75, mean, EPISODES) / 75


def made_up(method: str, scores: Any, folder_name: str = "x", **changes: Any) -> dict[str, Any]:
    """A complete record. Keys of ``changes`` replace the record's, or those of test or config."""
    interval, changed = student_interval(scores), changes.pop("test", {})
    counts = task() | changes.get("task", {})
    dataset = changes.get("dataset", "marks")
    config = CONFIG | {"dataset": dataset} | changes.pop("config", {})
    test: dict[str, Any] = {
        "accuracy": interval.mean,
        "half_width": interval.half_width,
        "level": 0.95,
        "interval": [interval.low, interval.high],
        "episodes": interval.n,
        "per_episode_sd": interval.sd,
        "transductive": False,
        "sampling": "closed",
        "metrics": {},
        "class_use": CLASS_USE,
    } | (changed or {})
    images = {part: [counts[n]] * 2 for part, n in PARTS.items()}
    summary = {
        "source": "episodes", "settings": {name: config[name] for name in OF_TRAINING},
        "dataset_digest": "d" * 64, "train_digest": f"{config['dataset']}{'d' * 64}"[:64],
        "init_digest": None, "classes": 1200, "images": 24_000, "labeled_images": 24_000,
        "turns": 1, "images_per_task": 200, "images_seen": 320_000,
    }  # fmt: skip
    record: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "status": "completed",
        "id": folder_name,
        "command": "fsb run",
        "method": method,
        "dataset": dataset,
        "dataset_digest": "d" * 64,
        "evaluated_digest": f"{dataset}{'d' * 64}"[:64],
        "dataset_license": "CC0",
        "dataset_source": "made up",
        "split": "official",
        "train_task": task(),
        "task": counts,
        "seed": 0,
        "episode_seed": 0,
        "preset": "quick",
        "config": config,
        "parameters": 10,
        "plugin": {"distribution": "made-up", "version": "1"},
        "plugins": [
            {"kind": kind, "name": name, "distribution": "fewshot-bench", "version": "1"}
            for kind, name in (("datasets", dataset), ("backbones", config["backbone"]))
        ],
        "environment": {},
        "device": {"type": "cpu", "name": "a processor"},
        "episodes_digest": "e" * 64,
        "test": test if changed is not None else None,
        "validation": None,
        "training": None,
        "timing": Timing().to_dict(),
        "notes": [],
        "part": "test",
        "sampler": {
            "name": test["sampling"],
            "distribution": "fewshot-bench",
            "version": "1",
            "options": {},
            "code": "0" * 64,
            "sampling": test["sampling"],
            **images,
        },
        "overlap": None,
        "training_summary": summary if changes.get("parameters") != 0 else None,
        "inputs": [],
        "weights": None,
        "seen": None,
        "evaluated_from": None,
        "error": None,
    }
    return record | changes


def write_run(runs: Path, method: str, scores: Any, **changes: Any) -> Path:
    """A run's folder with its record and its episodes."""
    folder = new_run_folder(runs, method)
    write_record(folder, made_up(method, scores, folder.name, **changes))
    write_table(folder / "episodes.csv", {"episode": np.arange(len(scores)), "accuracy": scores})
    return folder


def task(way: int = 5, shot: int = 5, query: int = 15) -> dict[str, int]:
    """The counts of a task, as a record holds them."""
    return {"way": way, "shot": shot, "query": query, "unlabeled": 0, "distractors": 0}


def write_curve(folder: Path, step_ms: list[float], validation: dict[int, float]) -> None:
    """steps.csv and validation.csv: {step: accuracy}."""
    write_table(folder / "steps.csv", {"step": range(1, len(step_ms) + 1), "step_ms": step_ms})
    columns = {"step": list(validation), "accuracy": list(validation.values())}
    write_table(folder / "validation.csv", columns)
