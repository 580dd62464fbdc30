"""Runs that nobody ran, written as the runner writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fewshot_bench.results.record import SCHEMA_VERSION, new_run_folder, write_record, write_table
from fewshot_bench.results.record.model import Timing
from fewshot_bench.results.stats import student_interval

EPISODES = 40


def scores_of(seed: int, mean: float = 0.9) -> np.ndarray:
    """Made-up accuracies of episodes of 75 queries."""
    return np.random.default_rng(seed).binomial(75, mean, EPISODES) / 75


def made_up(method: str, scores: Any, folder_name: str = "x", **changes: Any) -> dict[str, Any]:
    """A complete record. Keys of ``changes`` replace the record's, those of ``test`` the test's."""
    interval = student_interval(scores)
    counts = {"way": 5, "shot": 5, "query": 15, "unlabeled": 0, "distractors": 0}
    test = {
        "accuracy": interval.mean,
        "half_width": interval.half_width,
        "level": 0.95,
        "interval": [interval.low, interval.high],
        "episodes": interval.n,
        "per_episode_sd": interval.sd,
        "transductive": False,
        "sampling": "closed",
        "metrics": {},
    }
    record: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "status": "completed",
        "id": folder_name,
        "command": "fsb run",
        "method": method,
        "dataset": "marks",
        "dataset_digest": "d" * 64,
        "dataset_license": "CC0",
        "dataset_source": "made up",
        "split": "official",
        "train_task": counts,
        "task": counts,
        "seed": 0,
        "episode_seed": 0,
        "preset": "quick",
        "config": {"dataset_options": {"image_size": 28, "train_rotations": True}},
        "parameters": 10,
        "plugin": {"distribution": "made-up", "version": "1"},
        "plugins": [],
        "environment": {},
        "device": {"type": "cpu", "name": "a processor"},
        "episodes_digest": "e" * 64,
        "test": test,
        "validation": None,
        "training": None,
        "timing": Timing().to_dict(),
        "notes": [],
        "evaluated_digest": None,
        "part": "test",
        "sampler": None,
        "overlap": None,
        "training_summary": None,
        "inputs": [],
        "weights": None,
        "seen": None,
        "evaluated_from": None,
        "error": None,
    }
    changed = changes.get("test")
    return record | changes | ({"test": test | changed} if changed else {})


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
