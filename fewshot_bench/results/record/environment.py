"""Where a result was made: versions, processor, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PACKAGES = ("fewshot-bench", "torch", "torchvision", "numpy", "scipy")


def environment() -> dict[str, Any]:
    """Versions, platform, processor, threads, and the commit of a source checkout (else None)."""
    import torch

    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "commit": _commit(),
    }


def torch_version() -> str | None:
    """The installed torch's; does not import it."""
    return _version("torch")


def describe_device(device: torch.device) -> dict[str, Any]:
    """The record's ``device``: type and name, and what else a GPU's times depend on."""
    from fewshot_bench.utils.devices import gpu_properties

    cpu = {"name": f"{cpu_name()}, {os.cpu_count()} cores"}
    return {"type": device.type} | (gpu_properties(device) or cpu)


def cpu_name() -> str:
    """The processor's model, as well as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@cache
def _commit() -> str | None:
    """The commit of the checkout that this file lies in, with ``+`` if it has changes."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+"],
            cwd=root, capture_output=True, text=True, timeout=5, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.strip() or None
