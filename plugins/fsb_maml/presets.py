"""Settings of ``--preset quick | paper``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fewshot_bench.episode import Task

PRESETS = ("quick", "paper")

CHARACTERS = ("omniglot", "glyphs")  # small pictures of many classes

# For two CPU cores: first order, 4 tasks a step. Not the paper's schedule.
QUICK: dict[str, Any] = {
    "backbone": "conv4-strided",
    "first_order": True,
    "inner_lr": 0.1,
    "inner_steps": 5,
    "pooling": "flatten",
    "lr": 3e-3,
    "anneal": True,
    "task_batch": 4,
    "validate_every": 200,
    "validation_episodes": 100,
}


def preset(name: str, dataset: str, task: Task) -> Mapping[str, Any] | None:
    """The settings of a preset for a data set and task, or None if there is none."""
    if name == "quick":
        return _quick(dataset, task)
    if name == "paper":
        return _paper(dataset, task)
    return None


def _quick(dataset: str, task: Task) -> Mapping[str, Any]:
    """About the same time for every task: fewer steps where a task has more images to pass."""
    query = 15 if task.way <= 5 else 5
    passes = task.way * (QUICK["inner_steps"] * task.shot + query)
    steps = max(100, min(2000, 300_000 // passes))
    settings = QUICK | {"train_query": query}
    if dataset in CHARACTERS:
        return settings | {"steps": steps}
    # An 84x84 picture costs nine times a character.
    return settings | {"steps": steps // 8, "validate_every": 125, "validation_episodes": 50}


def _paper(dataset: str, task: Task) -> Mapping[str, Any]:
    """Finn et al. 2017, appendix A.1, and the authors' code.

    Their inner loss is summed over classes: alpha is way times what the paper prints. They test
    with as many queries as support images; ``--query 15`` gives the usual number.
    """
    common: dict[str, Any] = {
        "first_order": False,
        "lr": 1e-3,
        "steps": 60_000,
        "validate_every": 1000,
        "validation_episodes": 600,
        "backbone_statistics": "batch",
    }
    if dataset not in CHARACTERS:  # as for Mini-ImageNet
        return common | {
            "backbone": "conv4",
            "backbone_channels": 32,
            "pooling": "flatten",
            "inner_lr": 0.01 * task.way,
            "inner_steps": 5,
            "test_steps": 10,
            "task_batch": 4,
            "train_query": 15,
            "query": task.shot,
        }
    twenty = task.way >= 20
    # Their code turns the characters of the test split too.
    data = {"split": "random", "test_rotations": True} if dataset == "omniglot" else {}
    return (
        common
        | data
        | {
            "backbone": "conv4-strided",
            "pooling": "mean",
            "inner_lr": 2.0,  # 0.4 x 5 classes, 0.1 x 20 classes
            "inner_steps": 5 if twenty else 1,
            "test_steps": 5 if twenty else 3,
            "task_batch": 16 if twenty else 32,
            "train_query": task.shot,
            "query": task.shot,
        }
    )
