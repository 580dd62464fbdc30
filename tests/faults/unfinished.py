"""Runs that were interrupted, and what resumes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fewshot_bench.results.record import run_lock
from tests.faults.fault import Fault, World

Change = Callable[[World, dict[str, Any]], None]


def broken_off(change: Change = lambda *_: None) -> Any:
    """The run ``b`` as it stands when its process was killed behind its last step."""

    def spoil(world: World) -> None:
        path = world.run("b") / "record.json"
        record = json.loads(path.read_text("utf-8"))
        record |= {"status": "interrupted", "error": "interrupted by SIGTERM", "test": None}
        change(world, record)
        path.write_text(json.dumps(record), "utf-8")

    return spoil


def damaged(world: World, record: dict[str, Any]) -> None:
    """Its checkpoint has another byte."""
    (path,) = (world.run("b") / "checkpoints").iterdir()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def of_other_torch(world: World, record: dict[str, Any]) -> None:
    """It was started with another version."""
    record["environment"]["torch"] = "2.0.0"


def of_a_file(world: World, record: dict[str, Any]) -> None:
    """Its method is a file of code."""
    world.write("evil.py", "raise SystemExit('it was imported')")
    record["config"]["method"] = "./evil.py:Evil"


def of_no_steps(world: World, record: dict[str, Any]) -> None:
    """It has steps that nothing can train."""
    record["config"]["steps"] = -3


CASES = (
    Fault("resuming a run that is not there", "resume nowhere"),
    Fault("resuming a folder that is no run", "resume runs", runs="b"),
    Fault("resuming a finished run", "resume runs/b", runs="b", code=0, told="'runs/b' is"),
    Fault("resuming a run that another process writes", "resume runs/b",
          lambda world: broken_off()(world) or run_lock(world.run("b")), runs="b"),
    Fault("a checkpoint with another byte (training starts over)", "resume runs/b",
          broken_off(damaged), runs="b", code=0, told="there is no checkpoint"),
    Fault("a run that was started with another torch", "resume runs/b",
          broken_off(of_other_torch), runs="b"),
    Fault("an interrupted run whose method is a file of code", "resume runs/b",
          broken_off(of_a_file), runs="b"),
    Fault("an interrupted run of a negative number of steps", "resume runs/b",
          broken_off(of_no_steps), runs="b"),
    Fault("an interrupted run among finished ones", "compare runs", broken_off(), runs="ab", code=0,
          told="left out"),
    Fault("no such way with a run that exists", "run protonet --if-exists maybe"),
    Fault("no such interval of checkpoints", "run protonet --checkpoint-every soon"),
    Fault("no checkpoints to keep", "run protonet --keep-checkpoints 0"),
)  # fmt: skip
