"""What is freed is used again, and not fetched anew from the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tests.command_line import InProcess

FAULTS = """
import resource, sys
from fewshot_bench.cli._heap import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
import numpy as np
def use():
    np.ones(6_000_000)  # 48 MB: beyond what glibc keeps by itself
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_used_again() -> None:
    faults = {
        way: int(subprocess.check_output([sys.executable, "-c", FAULTS, way], text=True))
        for way in ("kept", "given back")
    }
    assert faults["kept"] * 10 < faults["given back"]


@pytest.mark.parametrize(
    ("command", "times"),
    [("run", 1), ("compare", 1), ("resume", 1), ("eval", 1), ("predict", 1), ("list", 0)],
)
def test_commands_that_train_or_evaluate_use_it(
    command: str, times: int, fsb: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr("fewshot_bench.cli.main.keep_freed_memory", lambda: calls.append(1))
    fsb(command, "--help")
    assert len(calls) == times
