"""How long the rows of times take, on a device that is handed its work ahead."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

WINDOW = 50  # steps, after which the trainer reads its numbers
OVER = 0.2  # seconds that a row may take beyond its share


class Device:
    """Work takes time on the device, and a millisecond of the host to be handed over.

    Arguments:
        ms: of a step.
    """

    def __init__(self, ms: float) -> None:
        self.ms, self.host, self.busy_until = ms, 0.0, 0.0
        self.step, self.waits, self.idle = 0, 0, 0.0
        self.executor = SimpleNamespace(running=lambda: self, name="graph")
        self.flops_per_unit = 1.0
        columns = SimpleNamespace(columns=self.columns, summary=self.summary)
        plan = SimpleNamespace(task_batch=1)
        self.trainer = SimpleNamespace(timer=columns, plan=plan, flush=self.flush, tell=None)

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def take(self) -> int:
        """A step of the trainer."""
        self.step += 1
        self.trainer.step = self.step
        self.host += 1e-3
        self.idle += max(0.0, self.host - self.busy_until)
        self.busy_until = max(self.host, self.busy_until) + self.ms / 1e3
        if self.step % WINDOW == 0:
            self.flush()
        return 1

    def flush(self) -> None:
        self.host = max(self.host, self.busy_until)

    def now(self) -> float:
        return self.busy_until

    def wait(self, moment: float) -> None:
        self.waits += moment > self.host
        self.host = max(self.host, moment)

    def columns(self) -> dict[str, Any]:
        return {"step_ms": np.full(self.step, self.ms)}

    def summary(self, tasks: int) -> dict[str, Any]:
        return {"step_ms": {"median": self.ms, "p95": self.ms}, "phases": {}}


@pytest.mark.parametrize("ms", [1.3, 31.0, 113.0, 700.0])
@pytest.mark.parametrize("seconds", [0.3, 1.0, 3.0])
def test_a_row_keeps_to_its_share(
    scripts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ms: float, seconds: float
) -> None:
    """Of a GPU, whose steps the host has handed over long before they are done."""
    speed, device = scripts.speed, Device(ms)
    prepared = SimpleNamespace(
        step=device.take, trainer=device.trainer, executor=device.executor, flops_per_unit=1.0
    )
    device.trainer.step = 0
    monkeypatch.setattr(speed.work, "prepare", lambda *_, **__: prepared)
    monkeypatch.setattr(speed.devices, "clock_of", lambda _: device)
    monkeypatch.setattr(speed, "time", SimpleNamespace(monotonic=lambda: device.host))
    cpu, end = torch.device("cpu"), time.monotonic() + 100
    bench = scripts.bench.Bench(cpu, False, tmp_path, end, tmp_path / "rows")
    row = speed.time_steps(bench, "W5", "graph", None, "fp32", seconds)
    least = speed.LEAST * ms / 1e3
    assert row["steps"] >= speed.LEAST
    assert device.host <= max(seconds, least) + OVER + 2 * ms / 1e3
    assert row["steps"] * ms / 1e3 > 0.9 * seconds  # and uses it
    if ms < 1e3 * OVER / WINDOW:  # a fast step is timed as if nobody waited
        assert device.waits == 0
    # Else the device has work before it all the time, but where numbers are read.
    assert device.idle <= 1e-3 * (2 + row["steps"] / WINDOW)


def rows_of(scripts: Any, tmp_path: Path, part: Any, left: float) -> list[dict[str, Any]]:
    out, cpu = tmp_path / "rows", torch.device("cpu")
    part(scripts.bench.Bench(cpu, False, tmp_path, time.monotonic() + left, out))
    return [json.loads(line) for line in out.read_text("utf-8").splitlines()]


@pytest.mark.parametrize(
    ("part", "left", "begun"),
    [
        ("metagan", 1.5, 0),
        ("metagan", 30.0, 3),
        ("evaluation", 4.0, 0),
        ("evaluation", 30.0, 8),
        ("profile", 6.0, 0),
    ],
)
def test_no_row_is_begun_without_the_time_that_one_took(
    scripts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, part: str, left: float,
    begun: int,
) -> None:  # fmt: skip
    speed = scripts.speed
    for name in ("time_steps", "time_evaluation", "delivery"):
        monkeypatch.setattr(speed, name, lambda *_: {"timed": True})
    monkeypatch.setattr(speed.work, "prepare", lambda *_, **__: pytest.fail("was begun"))
    rows = rows_of(scripts, tmp_path, getattr(speed, part), left)
    assert sum("timed" in row for row in rows if row.get("item") != "W3") == begun
    assert any("left" in row for row in rows) == (not begun)
    assert not any("error" in row for row in rows)


def test_an_evaluation_is_repeated_while_there_is_time(
    scripts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two are needed for a figure; each of these takes two seconds of a clock."""
    speed, clock = scripts.speed, [0.0]
    parts = SimpleNamespace(
        executor=SimpleNamespace(running=Device(1).executor.running, name="graph"),
        method=None, test=None,
    )  # fmt: skip

    def evaluate(*_: Any, **__: Any) -> Any:
        clock[0] += 2.0
        return SimpleNamespace(accuracy=np.ones(1))

    now = SimpleNamespace(perf_counter=lambda: clock[0])
    for name, stand_in in {
        "evaluated": lambda *_: parts, "evaluate": evaluate, "time": now, "Eager": lambda _: None,
    }.items():  # fmt: skip
        monkeypatch.setattr(speed, name, stand_in)
    monkeypatch.setattr(speed.work, "flops_of_task", lambda *_: 1.0)
    for left, repeats in ((100.0, 3), (6.5, 2), (1.0, 1)):
        clock[0] = 0.0
        bench = scripts.bench.Bench(torch.device("cpu"), False, tmp_path, 0.0, tmp_path / "rows")
        bench.left = lambda left=left: left - clock[0]
        row = speed.time_evaluation(bench, "W4_maml", "run", 200, "fp32")
        assert (row["repeats"], row["seconds"]) == (repeats, 2.0)
