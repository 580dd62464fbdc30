"""What this machine can do at best: matrix products, memory, launches of small operations.

    uv run python benchmarks/limit.py

The fractions in ``results/`` are of these numbers, measured in the same run.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

SIZE = {"cpu": 1536, "cuda": 8192}  # of the square matrices
BYTES = 256 * 2**20  # of the array that is copied
LAUNCHES = 2000


@dataclass(frozen=True)
class Limits:
    """Best rates of a device.

    Arguments:
        flops: float32 operations a second of a matrix product.
        bytes: memory bytes a second, read and written, of a copy.
        launch_us: microseconds that an operation on one number takes.
    """

    flops: float
    bytes: float
    launch_us: float


def measure(device: torch.device, repeats: int = 5) -> Limits:
    """Medians of a few repeats, warmed up; about two seconds on two cores."""
    source = torch.ones(BYTES // 4, device=device)
    target, one = torch.empty_like(source), torch.ones(1, device=device)

    def small() -> None:
        for _ in range(LAUNCHES):
            one.add_(1)

    return Limits(
        product(device, torch.float32, repeats),
        2 * BYTES / _seconds(lambda: target.copy_(source), device, repeats),
        _seconds(small, device, repeats) / LAUNCHES * 1e6,
    )


def product(device: torch.device, dtype: torch.dtype, repeats: int = 5) -> float:
    """Operations a second of a matrix product."""
    size = SIZE[device.type]
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * size**3 / _seconds(lambda: torch.mm(a, b, out=out), device, repeats)


def _seconds(work: Callable[[], Tensor | None], device: torch.device, repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    for name in ["cpu"] + (["cuda"] if torch.cuda.is_available() else []):
        print(json.dumps({"device": name, **asdict(measure(torch.device(name)))}))
