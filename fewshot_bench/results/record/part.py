"""Which split a record's result is of: the test split, or the validation split to choose by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TEST, VALIDATION = "test", "validation"
# What an evaluation of the validation split holds and the validation of a training does not.
WHOLE = ("accuracy", "half_width", "level", "interval", "episodes", "per_episode_sd",
         "transductive", "sampling", "metrics")  # fmt: skip


def part_of(record: Mapping[str, Any]) -> str:
    """``test`` or ``validation``; records from before there was a choice are of the test split."""
    return str(record.get("part") or TEST)


def with_result(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with its result under ``test``, whichever split it is of.

    In a file the result of the validation split is not under ``test``, so that no reader, also one
    that does not know ``part``, takes it for one on the test split.
    """
    record = dict(record)
    if part_of(record) == VALIDATION and record.get("test") is None:
        result = record.get("validation") or {}
        if all(name in result for name in WHOLE):
            use = {"class_use": result.get("class_use")}
            record["test"] = {name: result[name] for name in WHOLE} | use
    return record
