"""Where the scripts lie that measure a GPU."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
GPU = BENCHMARKS / "gpu"
