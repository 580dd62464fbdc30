"""What a run shows while it goes on: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import IO, Any, cast

from rich import progress as rich_progress
from rich.console import Console
from rich.progress import TaskID, TextColumn
from rich.text import Text

from fewshot_bench.cli._console import LOG_LINES, Lasting
from fewshot_bench.engine.checkpointing import Interrupted
from fewshot_bench.errors import Stopped
from fewshot_bench.utils.text import printable

PLAIN_EVERY = 10.0  # seconds between lines where there is no terminal


class _Remaining(rich_progress.TimeRemainingColumn):
    """Time left; not for the bar of runs, which differ too much for an average."""

    def render(self, task: rich_progress.Task) -> Text:
        return Text("") if task.fields.get("has_time") else super().render(task)


class Progress:
    """Live progress on standard error. Use as a context manager."""

    def __init__(self) -> None:
        self.console = Console(file=cast(IO[str], Lasting(sys.stderr)))
        self.live = self.console.is_terminal
        self.bars = rich_progress.Progress(
            TextColumn("{task.description:<6}"),
            rich_progress.BarColumn(bar_width=24),
            rich_progress.MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            _Remaining(compact=True),
            console=self.console,
            disable=not self.live,
        )
        self.task: TaskID | None = None
        self.whole: TaskID | None = None
        self.name, self.total, self.before = "", 0, 0
        self.began = self.last = time.monotonic()

    def __enter__(self) -> Progress:
        LOG_LINES.show = self.message
        self.bars.start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.bars.stop()
        del LOG_LINES.show
        if isinstance(error, Interrupted):
            raise Stopped(str(error), error.number) from error

    def cell(self, number: int, of: int, title: str, seconds_left: float | None) -> None:
        """A run of a grid begins; ``seconds_left``: for it and the later ones, if known."""
        left = "" if seconds_left is None else f", about {_duration(seconds_left)} left for all"
        if self.whole is None:
            self.whole = self.bars.add_task("runs", total=of, numbers="", has_time=True)
        self.bars.update(self.whole, completed=number - 1, numbers=f"{title}{left}")
        if not self.live:
            self.message(f"run {number}/{of}: {title}{left}")

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """A part of the run begins that has ``total`` units of work, or goes on after ``done``."""
        if self.task is not None:
            self.bars.remove_task(self.task)
        self.task = self.bars.add_task(name, total=total, completed=done, numbers="")
        self.name, self.total, self.before = name, total, done
        self.began = self.last = time.monotonic()

    def update(self, done: int, **numbers: float) -> None:
        """So many units are done, of ``tasks`` (default 1) each; a few of the numbers are shown."""
        losses = {n.removeprefix("loss_"): v for n, v in numbers.items() if n.startswith("loss_")}
        parts = [f"{name} loss {value:.3f}" for name, value in losses.items()]
        if "accuracy" in numbers:
            parts.append(f"accuracy {numbers['accuracy']:.1%}")
        now, here = time.monotonic(), done - self.before  # what this process did, and since when
        rate = here / max(now - self.began, 1e-9) * numbers.get("tasks", 1.0)
        parts.append(f"{rate:.1f} tasks/s")
        text = ", ".join(parts)
        if self.task is not None:
            self.bars.update(self.task, completed=done, numbers=text)
        if not self.live and (now - self.last > PLAIN_EVERY or done == self.total):
            self.last = now
            left = (now - self.began) / max(here, 1) * (self.total - done)
            self.message(f"{self.name} {done}/{self.total}: {text}, {left:.0f} s left")

    def message(self, text: str) -> None:
        """A line that stays."""
        self.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
