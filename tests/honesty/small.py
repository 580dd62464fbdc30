"""Runs that take a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SMALL = {
    "dataset": "glyphs", "way": 3, "shot": 1, "query": 2, "train_way": 3, "train_query": 2,
    "steps": 4, "task_batch": 2, "validate_every": 2, "validation_episodes": 4, "episodes": 6,
    "train_classes": 20, "validation_classes": 8, "test_classes": 8, "runs_dir": "runs",
}  # fmt: skip
WITHOUT_BACKBONE = ("nearest-centroid", "frozen")


def small(cache: Path, method: str = "protonet") -> dict[str, Any]:
    """Settings of a small run of a method, its folder in the current one."""
    settings = SMALL | {"cache_dir": str(cache)}
    return settings if method in WITHOUT_BACKBONE else settings | {"backbone_channels": 4}


def folder_of(record: dict[str, Any]) -> Path:
    """Where a run was written."""
    return Path(record["config"]["runs_dir"]) / record["id"]
