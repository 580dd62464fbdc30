"""What fuzzing found, as cases of its own: each was an error that nobody had foreseen."""

from __future__ import annotations

from typing import Any

# (place in the record, value, what is typed)
RECORDS: tuple[tuple[str, Any, str], ...] = (
    ("config", {"dataset_options": {}}, "eval runs/one"),
    ("config.metrics", [3], "eval runs/one"),
    ("plugins", [{}], "eval runs/one"),
)
GRIDS: tuple[str, ...] = (
    "a = " + "[" * 100_000,
    "[methods.a]\nmethod = 3",
    "level = ''\n[methods.maml]",
    "target = true\n[methods.maml]",
    "[methods.maml]\nwith = [1.5]",
    "[methods.maml]\nmetric = 3",
)
# (suffix, text)
SPLITS: tuple[tuple[str, str], ...] = ((".json", "[" * 100_000),)
