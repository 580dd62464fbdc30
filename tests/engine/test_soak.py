"""Sampler and loop over many steps: the memory of the process stays where it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from fewshot_bench.engine.executors import Eager
from fewshot_bench.engine.training import Plan, Trainer
from tests.engine.toys import Prototypes, source

BYTES_A_STEP = 400  # a dozen numbers of eight bytes, in arrays that grow by steps
TRIES = 3  # the system may give a process huge pages at any moment; what leaks does so every time


def resident() -> int:
    """Bytes of memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system has no /proc")
@pytest.mark.parametrize("steps", [600, pytest.param(100_000, marks=pytest.mark.exhaustive)])
def test_memory_is_flat(steps: int) -> None:
    torch.manual_seed(0)
    method = Prototypes()
    runs = Eager(method)
    trainer = Trainer(method, runs, source(), Plan(TRIES * steps, 1))
    method.train()

    def train(count: int) -> None:
        for _ in range(count):
            trainer.advance()
            trainer.flush()

    with runs.running():
        train(steps // 10)
        for attempt in range(1, TRIES + 1):
            before = resident()
            train(steps - steps // 10)
            grown = resident() - before
            print(f"{attempt}: {grown / 1e6:.1f} MB more after {steps - steps // 10} steps")
            if enough := grown < 4e6 + BYTES_A_STEP * steps / 10:
                break
    assert enough
    assert len(trainer.history.steps) == steps // 10 + attempt * (steps - steps // 10)
