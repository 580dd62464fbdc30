"""Where a result was made: versions, processor, commit."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# Parts of this package that show results and do not make them.
SHOWING = (
    "cli",
    "figures",
    "report",
    "results",
    "grid.py",
    "pace.py",
    "pytest_plugin.py",
    "templates",
    "testing",
)
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


def code_digest(modules: Iterable[str]) -> str:
    """sha256 over the source of this package and of some modules: what made the numbers of a run.

    Arguments:
        modules: top-level names of packages or modules, or absolute paths of single files: those
            of the run's plugins.
    """
    each = (_digest_of(module) for module in sorted({"fewshot_bench", *modules}))
    return hashlib.sha256(b"".join(each)).hexdigest()


def source_digest(module: str) -> str:
    """sha256 over the source of one package, module or file alone."""
    return _digest_of(module).hex()


@cache
def _digest_of(module: str) -> bytes:
    """Of one package, module or file, as it was when this process first asked.

    A process goes on with what it has imported while somebody edits the files: a long grid would
    otherwise say of its later runs that newer code made them.
    """
    sha = hashlib.sha256()
    for path in _sources(module):
        # A file's own folder is none of its content.
        where = "file" if path == Path(module) else module
        sha.update(f"{where}/{path.name}\0".encode())
        sha.update(path.read_bytes())
    return sha.digest()


def _sources(module: str) -> list[Path]:
    if module.endswith(".py"):
        return [Path(module)]
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return []
    if spec.submodule_search_locations is None:
        return [Path(spec.origin)]
    root = Path(spec.origin).parent
    return sorted(
        path
        for path in root.rglob("*.py")
        if module != "fewshot_bench" or path.relative_to(root).parts[0] not in SHOWING
    )


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return f"{cpu_name()}, {os.cpu_count()} cores"


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
    root = Path(__file__).resolve().parents[2]
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
