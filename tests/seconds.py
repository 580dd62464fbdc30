"""Record how long each test takes, by which tests/conftest.py marks tests as slow or exhaustive.

    uv run python tests/seconds.py        all tests, one at a time; about an hour

It writes tests/seconds.json: {test: seconds}, of the tests that take at least a tenth of a second.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).with_name("seconds.json")
LEAST = 0.1


class Recorder:
    """Adds up set-up, call and tear-down of each test."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] += report.duration


def write(seconds: dict[str, float]) -> None:
    """Write the tests that take long enough, in their order."""
    found = {test: round(value, 1) for test, value in sorted(seconds.items()) if value >= LEAST}
    FILE.write_text(json.dumps(found, indent=0) + "\n", "utf-8")


if __name__ == "__main__":
    recorder = Recorder()
    code = pytest.main(["-q", "-n", "0", "-m", "", *sys.argv[1:]], plugins=[recorder])
    write(recorder.seconds)
    sys.exit(code)
