"""The work items under pytest-benchmark: each is a test, small without ``--benchmark-enable``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from commands import COMMANDS, time_command
from work import SETTINGS, prepare, unit

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("item", SETTINGS)
def test_item(benchmark: Any, item: str) -> None:
    work = prepare(item, DEVICE, small=not benchmark.enabled)
    units = []

    def step() -> None:
        units.append(work.step())
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    with work.executor.running():
        benchmark.pedantic(step, rounds=5, warmup_rounds=1)
    assert units[0] > 0
    if benchmark.stats:
        benchmark.extra_info[unit(item)] = units[0] / benchmark.stats.stats.median


@pytest.mark.parametrize("item", COMMANDS)
def test_command(benchmark: Any, item: str) -> None:
    result = benchmark.pedantic(time_command, (item, 3, not benchmark.enabled))
    assert 0 < result["spread"][0] <= result["ours"] <= result["spread"][1]
