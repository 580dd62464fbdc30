"""An observer that writes TensorBoard events into the run's folder."""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fewshot_bench import hookimpl
from fewshot_bench.errors import ConfigError
from fewshot_bench.results.record import read_table

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError as error:
    raise ConfigError(
        f"--with tensorboard needs the package tensorboard ({error}); install it: "
        "pip install 'fewshot-bench[tensorboard]'"
    ) from error

STRETCHES = 1000  # step times at most: a curve needs no more
GROUPS = {"loss_": "loss", "gradient_norm_": "gradient norm"}


class TensorBoard:
    """Scalars by training step, and the configuration as text."""

    @hookimpl
    def run_started(self, config: Mapping[str, Any], folder: Path, resumed_from: int) -> None:
        """Open the file of events, which is closed however the run ends."""
        again = resumed_from + 1 if resumed_from else None
        self.folder, self.writer = folder, SummaryWriter(str(folder), purge_step=again)
        weakref.finalize(self, self.writer.close)
        self.writer.add_text("configuration", f"```\n{json.dumps(config, indent=2)}\n```")

    @hookimpl
    def train_logged(self, step: int, metrics: Mapping[str, float]) -> None:
        """Losses, gradient norms and what the method logs."""
        for name, value in metrics.items():
            if name != "step":
                self.writer.add_scalar(tag(name), value, step)

    @hookimpl
    def evaluation_finished(self, split: str, step: int, scores: np.ndarray) -> None:
        """The mean accuracy of the validation or the test."""
        self.writer.add_scalar(f"accuracy/{split}", scores.mean(), step)
        self.writer.flush()

    @hookimpl
    def run_finished(self) -> None:
        """Step times, which the run's table holds."""
        path = self.folder / "steps.csv"
        for name, at, ms in step_times(read_table(path)) if path.is_file() else ():
            self.writer.add_scalar(name, ms, at)
        self.writer.close()


def tag(name: str) -> str:
    """``loss_meta`` becomes ``loss/meta``: TensorBoard groups by what is before the slash."""
    for prefix, group in GROUPS.items():
        if name.startswith(prefix):
            return f"{group}/{name.removeprefix(prefix)}"
    return f"train/{name}"


def step_times(table: Mapping[str, np.ndarray]) -> list[tuple[str, int, float]]:
    """(tag, last step, median ms) of each stretch of the training."""
    times = {name: ms for name, ms in table.items() if name.endswith("_ms")}
    parts = np.array_split(np.arange(len(table["step"])), min(STRETCHES, len(table["step"])))
    return [
        (f"time/{name}", int(table["step"][part[-1]]), float(np.median(ms[part])))
        for name, ms in times.items()
        for part in parts
        if np.isfinite(ms[part]).all()
    ]
