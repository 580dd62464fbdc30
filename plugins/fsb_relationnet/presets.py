"""Settings of ``--preset quick | paper``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fewshot_bench.episode import Task

PRESETS = ("quick", "paper")

CHARACTERS = ("omniglot", "glyphs")  # small pictures of many classes

# For two CPU cores. Not the paper's schedule.
QUICK: dict[str, Any] = {
    "backbone": "conv4-relation",
    "backbone_statistics": "running",
    "train_query": 5,
    "task_batch": 2,  # one for each core
    "clip": None,
}


def preset(name: str, dataset: str, task: Task) -> Mapping[str, Any] | None:
    """The settings of a preset for a data set and task, or None if there is none."""
    if name == "quick":
        if dataset in CHARACTERS:
            times = {"steps": 800, "halve_every": 250, "validate_every": 200}
            return QUICK | times | {"validation_episodes": 100}
        # An 84x84 picture costs ten times a character.
        times = {"steps": 200, "halve_every": 70, "validate_every": 100}
        return QUICK | times | {"validation_episodes": 50}
    return _paper(dataset, task) if name == "paper" else None


def _paper(dataset: str, task: Task) -> Mapping[str, Any]:
    """Sung et al. 2018, section 4, and the authors' code (clip, batch statistics, steps, queries).

    On Omniglot, 1200 random characters train, and the others are tested, all of them turned too.
    The queries that are normalized together at test are those of the code: K a class on Omniglot;
    on pictures it classifies the 15 of an episode in batches of 3 (1-shot) or 5 (5-shot) a class,
    which are episodes of their own here.
    """
    characters = dataset in CHARACTERS
    few = task.shot == 1
    if characters:
        train_query = (19 if few else 15) if task.way < 20 else (10 if few else 5)
        query = task.shot
    else:
        train_query, query = (15, 3) if few else (10, 5)
    data = {"split": "random", "test_rotations": True} if dataset == "omniglot" else {}
    return data | {
        "backbone": "conv4-relation",
        "backbone_statistics": "batch",
        "train_query": train_query,
        "query": query,
        "task_batch": 1,
        "steps": 1_000_000 if characters else 500_000,
        "halve_every": 100_000,
        "validate_every": 5000,
        "validation_episodes": 600,
        "episodes": 1000 if characters else 600,
    }
