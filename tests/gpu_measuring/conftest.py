"""The scripts that measure a GPU, for tests that have none."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tests.gpu_measuring.gpu_scripts import BENCHMARKS, GPU

MODULES = (
    "bench", "carried", "correctness", "differing", "grown", "growth", "kernels", "measure",
    "parts", "published", "reading", "report", "rows", "speed", "visits",
)  # fmt: skip


@pytest.fixture(scope="module")
def scripts() -> Any:
    """The scripts as modules, by name; where they lie, and their names, stay nobody's."""
    path, names = list(sys.path), set(sys.modules)
    sys.path[:0] = [str(GPU), str(BENCHMARKS)]
    try:
        modules = {name: importlib.import_module(name) for name in MODULES}
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - names:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if file.startswith(str(BENCHMARKS)):
                del sys.modules[name]
    return SimpleNamespace(**modules)
