"""Where a result was made: versions, processor, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot_bench.results.record.model import Device, Environment

if TYPE_CHECKING:
    import torch


def environment() -> dict[str, Any]:
    """The record's ``environment``, without ``code``."""
    import torch

    packages = ("fewshot-bench", "torch", "torchvision", "numpy", "scipy")
    return Environment(
        python=platform.python_version(),
        **{name.replace("-", "_"): installed_version(name) for name in packages},
        platform=platform.platform(),
        cpu=cpu_name(),
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        cuda=torch.version.cuda if torch.cuda.is_available() else None,
        commit=_commit(),
    ).to_dict()


def describe_device(device: torch.device) -> dict[str, Any]:
    """The record's ``device``: type and name, and what else a GPU's times depend on."""
    from fewshot_bench.utils.devices import gpu_properties

    cpu = {"name": f"{cpu_name()}, {os.cpu_count()} cores"}
    return Device(type=device.type, **(gpu_properties(device) or cpu)).to_dict()


def cpu_name() -> str:
    """The processor's model, as the system names it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def installed_version(distribution: str) -> str | None:
    """Its version, without importing it; None: it is not installed."""
    with suppress(PackageNotFoundError):
        return version(distribution)
    return None


@cache
def _commit() -> str | None:
    """The commit of the checkout that this file lies in, with ``+`` if it has changes."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    with suppress(OSError, subprocess.SubprocessError):
        words = ["git", "describe", "--always", "--abbrev=12", "--dirty=+"]
        found = subprocess.run(
            words, cwd=root, capture_output=True, text=True, timeout=5, check=True
        )
        return found.stdout.strip() or None
    return None
