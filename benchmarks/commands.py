"""W6: whole commands, from the start of the process."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from work import dataset

FSB = [sys.executable, "-m", "fewshot_bench"]
COMMANDS = ("W6_help", "W6_first_step", "W6_table")
FEW = ["--episodes", "32", "--validation-episodes", "32"]


def time_command(item: str, turns: int, small: bool) -> dict[str, Any]:
    """Seconds of a command, warmed up once: median and spread.

    ``W6_help``: ``fsb --help``. ``W6_first_step``: ``fsb run protonet`` until its first training
    step is done, data read from the cache. ``W6_table``: the same until its table stands there,
    with one step and 32 episodes: what a run costs beside its training and its test.
    """
    with tempfile.TemporaryDirectory() as runs:
        seconds = [_seconds(item, runs) for _ in range((1 if small else turns) + 1)][1:]
    return {
        "ours": statistics.median(seconds),
        "unit": "s",
        "spread": [min(seconds), max(seconds)],
        "peers": {},
        "ratio_to_best_peer": None,
        "fraction_of_limit": None,
    }


def _seconds(item: str, runs: str) -> float:
    if item == "W6_help":
        start = time.perf_counter()
        subprocess.run([*FSB, "--help"], check=True, capture_output=True)
        return time.perf_counter() - start
    run = ["run", "protonet", "--dataset", dataset(), "--steps", "1", "--runs-dir", runs, *FEW]
    run += ["--if-exists", "fresh"]
    start = time.perf_counter()
    with subprocess.Popen(
        [*FSB, *run], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        first = None
        for line in process.stderr:
            if line.startswith("train 1/1"):
                first = time.perf_counter() - start
    if process.returncode or first is None:
        raise RuntimeError(f"{' '.join(run)} ended with status {process.returncode}")
    return first if item == "W6_first_step" else time.perf_counter() - start
