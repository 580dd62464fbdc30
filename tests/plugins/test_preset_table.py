"""What every preset sets, for every data set and task: the table in presets.json."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from fewshot_bench.config.options import load
from fewshot_bench.episode import Task
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.method import preset_settings

ROWS = json.loads(Path(__file__).with_name("presets.json").read_text("utf-8"))
METHODS = sorted({row["method"] for row in ROWS})
TASKS = {task for row in ROWS for task in row["tasks"]}


@pytest.mark.parametrize("method", METHODS)
def test_settings_are_those_of_the_table(method: str) -> None:
    registry = Registry.discover()
    expected: dict[tuple[str, ...], Any] = {
        (row["preset"], dataset, task): row["settings"]
        for row in ROWS
        if row["method"] == method
        for dataset, task in product(row["datasets"], row["tasks"])
    }
    kind, found = load(registry, "methods", method), {}
    for preset, dataset, task in product(kind.presets, registry.names("datasets"), TASKS):
        way, shot = (int(part.partition("-")[0]) for part in task.split())
        data = load(registry, "datasets", dataset)
        settings = preset_settings(kind, preset, data, Task(way, shot))
        if settings is not None:
            found[preset, dataset, task] = json.loads(json.dumps(settings))
    assert found == expected
