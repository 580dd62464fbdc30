"""What a test may leave changed in its process, so that the tests after it find another world."""

from __future__ import annotations

import locale
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

# Variables that pytest sets, and torch (or our command for it) when more of it is imported.
THEIRS = ("PYTEST_", "TORCH", "KINETO_")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def _torch(ask: Callable[[Any], object]) -> Callable[[], object]:
    """Asks torch, if a test has imported it."""
    return lambda: ask(sys.modules["torch"]) if "torch" in sys.modules else None


WATCHED: Mapping[str, Callable[[], object]] = {
    "the working folder": os.getcwd,
    "the environment": lambda: {
        f"{k}={v}" for k, v in os.environ.items() if not k.startswith(THEIRS)
    },
    "sys.path": lambda: set(sys.path),  # a set: pytest itself puts a folder in front again
    "sys.argv": lambda: list(sys.argv),
    "signal handlers": lambda: [signal.getsignal(number) for number in SIGNALS],
    "the locale": lambda: locale.setlocale(locale.LC_ALL),
    "the level of the root logger": lambda: logging.getLogger().level,
    "the package's logger": lambda: _logger(logging.getLogger("fewshot_bench")),
    "numpy's handling of errors": np.geterr,
    "the umask": lambda: _umask(),
    "threads": lambda: sorted(t.name for t in threading.enumerate() if not t.daemon),
    "torch's threads": _torch(lambda torch: torch.get_num_threads()),
    "torch's default dtype": _torch(lambda torch: torch.get_default_dtype()),
    "torch's default device": _torch(lambda torch: str(torch.get_default_device())),
    "whether torch records gradients": _torch(lambda torch: torch.is_grad_enabled()),
    "torch's matmul precision": _torch(lambda torch: torch.get_float32_matmul_precision()),
    "torch's determinism": _torch(lambda torch: torch.are_deterministic_algorithms_enabled()),
    "torch's anomaly detection": _torch(lambda torch: torch.is_anomaly_enabled()),
}


def state() -> dict[str, object]:
    """What there is now."""
    return {name: ask() for name, ask in WATCHED.items()}


def changes(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    """What is not as it was, in words; what a test only imported is no change."""
    return "; ".join(
        f"{name} ({_difference(value, after[name])})"
        for name, value in before.items()
        if value is not None and after[name] != value
    )


def _difference(before: object, after: object) -> str:
    """Two values; of two sets, what only one has: an environment is long."""
    if isinstance(before, set) and isinstance(after, set):
        before, after = sorted(before - after), sorted(after - before)
    return f"{before!r}, now {after!r}"


def _logger(logger: logging.Logger) -> object:
    return list(logger.handlers), logger.level, logger.propagate


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
