"""What is said of a run while it goes on."""

from __future__ import annotations

import pytest

from fewshot_bench.cli.progress import Progress


def test_rate_and_time_left_are_of_this_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training that goes on after step 200 did not do those 200 steps in the last 20 seconds."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    progress = Progress()
    progress.phase("train", 600, 200)
    now[0] += 20
    progress.update(210, tasks=4, loss_meta=0.5)
    assert capsys.readouterr().err == "train 210/600: meta loss 0.500, 2.0 tasks/s, 780 s left\n"
