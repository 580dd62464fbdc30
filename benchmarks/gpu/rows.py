"""Rows of the table of published figures: each a run that may go on another time.

What was carried from an earlier visit goes on first, what is nearest to its end before the others;
then the rows of ``published.toml`` begin in their order; what time is left then goes to what is
nearest to its end. A run that can be ended in the time that is left is ended. One that cannot has
a third of that time, and at least ``SLICE`` seconds, so that the others have some; it is stopped
with a checkpoint. One that cannot be ended and whose checkpoint is too large to be carried is
stopped as soon as that is known: its time would be lost.
"""

from __future__ import annotations

import io
import os
import shlex
import signal
import sys
import tempfile
import threading
import time
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import carried
import work
from bench import Bench
from carried import Kept, runs_in
from published import HERE, Published, in_order, stands_for

SLICE = 25.0  # seconds
SHARE = 3  # of the time that is left, a run that cannot be ended has one part in so many
TESTED = 6.0  # seconds for what comes behind the last step
RESERVE = 6.0  # seconds, to stop and to write what is kept
EVERY = "8s"  # a checkpoint: how far it is, is known from these
LOOK = 0.25  # seconds from one look at a run to the next
LEAST = 15.0  # seconds: for less, nothing is begun
UNKNOWN = float("inf")


def rows(bench: Bench) -> None:
    """Published rows, in order; what is cut off can be resumed."""
    figures = wanted(bench)[: 1 if bench.small else None]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for place in (*bench.carried, bench.keep):
            for problem in carried.unpack(place, folder):
                bench.row(carried=str(place), error=problem)
        keep_carried(bench, folder)
        for run in unfinished(folder):
            go_on(bench, folder, run)
        for figure in figures:
            title = figure.title
            if run_of(figure, folder, bench) is None:
                if bench.over(LEAST + RESERVE, title):
                    continue
                go(bench, folder, title, words_of(figure, bench, folder), "begun", None)
        for run in unfinished(folder):
            if bench.left() > LEAST + RESERVE and need_of(run) < bench.left() - RESERVE:
                go_on(bench, folder, run)


def keep_carried(bench: Bench, folder: Path) -> None:
    """Keep what was unpacked: where nothing is begun or resumed, nothing else would."""
    runs = by_value(folder)
    if not runs:
        return
    left_out = carried.keep(runs, bench.keep, bench.volumes)
    for run in runs:
        if why := left_out.get(run.folder.name):
            bench.row(row=name_of(run, bench), began="carried", not_kept=why, **summary(run))


def wanted(bench: Bench) -> list[Published]:
    """The rows that are asked for, in order."""
    figures = in_order(HERE / "published.toml")
    return [f for f in figures if not bench.rows or any(words in f.title for words in bench.rows)]


def unfinished(folder: Path) -> list[Kept]:
    """What can be gone on with, the nearest to its end first."""
    return sorted((run for run in runs_in(folder) if run.going and run.step), key=need_of)


def need_of(run: Kept) -> float:
    """Seconds to the end of a run, by those that its steps took so far."""
    seconds = (run.record.get("training") or {}).get("seconds")
    if run.finished or not run.step or not seconds:
        return 0.0 if run.finished else UNKNOWN
    return float(seconds) / run.step * (run.record["config"]["steps"] - run.step) + TESTED


def run_of(figure: Published, folder: Path, bench: Bench) -> Kept | None:
    """The furthest run of this row; None without one, or where there is nothing to resume."""
    own = [run for run in runs_in(folder) if title_of(run, [figure], bench)]
    own = [run for run in own if run.step or not run.going]
    return max(own, key=lambda run: run.reached, default=None)


def title_of(run: Kept, figures: list[Published], bench: Bench) -> str | None:
    """The row that a run is of."""
    for figure in figures:
        if bench.small:
            if run.record["method"] == figure.method:
                return figure.title
        elif stands_for(run.record, figure):
            return figure.title
    return None


def name_of(run: Kept, bench: Bench) -> str:
    """The row that a run is of, or its folder where it is of none."""
    return title_of(run, in_order(HERE / "published.toml"), bench) or run.folder.name


def words_of(figure: Published, bench: Bench, folder: Path) -> list[str]:
    """What is typed for a row."""
    words = shlex.split(figure.command)
    if bench.small:
        words = ["fsb", "run", figure.method, "--dataset", work.dataset(), "--shot", "1"]
        words += ["--way", "5", "--steps", "4", "--episodes", "8"]
    words += ["--device", str(bench.device), "--runs-dir", str(folder)]
    return [*words, "--keep-checkpoints", "1", "--checkpoint-every", EVERY]


def go_on(bench: Bench, folder: Path, run: Kept) -> None:
    """Resume a run; code that has changed in between is a note in its record.

    Of several runs of a row (two visits may have begun it) the furthest alone goes on.
    """
    title = name_of(run, bench)
    further = [other for other in runs_in(folder) if other.reached > run.reached]
    if any(name_of(other, bench) == title for other in further):
        return
    if bench.over(LEAST + RESERVE, title):
        return
    device = ["--device", str(bench.device)]  # it may have begun on a processor
    words = ["fsb", "resume", str(run.folder), "--allow-changes", *device]
    go(bench, folder, title, words, f"resumed at step {run.step}", run)


def go(
    bench: Bench, folder: Path, title: str, words: list[str], began: str, run: Kept | None
) -> None:
    """Run a command for as long as it may, keep what it has made, and tell of it.

    Arguments:
        bench: whose time it is.
        folder: of the runs.
        title: of the row.
        words: the command.
        began: how, for people.
        run: that is gone on with; None: a new one.
    """
    with bench.told(row=title, began=began) as row:
        bench.fresh()
        warden = Warden(bench, folder, run)
        status, said = in_this_process(words, warden)
        touched = warden.found()
        left_out = carried.keep(by_value(folder), bench.keep, bench.volumes)
        if touched is not None:
            row |= summary(touched)
            if touched.folder.name in left_out:
                row["not_kept"] = left_out[touched.folder.name]
        if warden.why is not None and (touched is None or not touched.finished):
            row["left"] = f"the end of {title}"
            row["stopped"] = warden.why
        elif status or touched is None or not touched.finished:
            row["error"] = f"exit status {status}{said and ': ' + said}"


def by_value(folder: Path) -> list[Kept]:
    """Runs as they should be kept: results, then what is nearest to its end."""
    runs = runs_in(folder)
    return [*(r for r in runs if r.finished), *unfinished(folder)]


def summary(run: Kept) -> dict[str, Any]:
    """A run in a row."""
    record = run.record
    training, test = record["training"] or {}, record["test"] or {}
    need = need_of(run)
    return {
        "run": run.folder.name,
        "status": record["status"],
        "step": training.get("steps") if run.finished else run.step,
        "steps": record["config"]["steps"],
        "seconds": training.get("seconds"),
        "need_s": None if need == UNKNOWN else need,
        "test": {name: test.get(name) for name in ("accuracy", "half_width")} if test else None,
        "step_ms": record["timing"].get("step_ms"),
        "engine": training.get("engine"),
    }


class Heard(io.TextIOBase):
    """Passes on what is printed, and remembers the last line of it."""

    def __init__(self, to: TextIO) -> None:
        self._to, self._line, self.last = to, "", ""

    def write(self, text: str) -> int:
        self._to.write(text)
        *whole, self._line = (self._line + text).split("\n")
        self.last = next((line for line in reversed(whole) if line.strip()), self.last)
        return len(text)

    def flush(self) -> None:
        self._to.flush()


def in_this_process(words: list[str], warden: Warden) -> tuple[int, str]:
    """What a command exits with, and the last line that it printed on standard error.

    A process of its own would take seconds to begin.
    """
    from fewshot_bench.cli.main import main

    before, sys.argv = sys.argv, words
    heard = Heard(sys.stderr)
    status = 0
    try:
        with redirect_stderr(heard), warden:  # type: ignore[type-var]
            main()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 0
    finally:
        sys.argv = before
    return status, heard.last


@dataclass
class Pace:
    """How fast a run goes, from the checkpoints that it writes.

    Arguments:
        steps: of the run.
        seen: (step, when) of each checkpoint that has been seen since the process began.
    """

    steps: int
    seen: list[tuple[int, float]] = field(default_factory=list)

    def look(self, step: int, now: float) -> None:
        """The newest checkpoint is of this step."""
        if step and (not self.seen or step > self.seen[-1][0]):
            self.seen.append((step, now))

    def need(self) -> float | None:
        """Seconds from the newest checkpoint to the end; None while nobody knows."""
        if len(self.seen) < 2:
            return None
        (first, began), (last, now) = self.seen[0], self.seen[-1]
        return (now - began) / (last - first) * (self.steps - last) + TESTED


def why_stop(
    left: float, elapsed: float, share: float, need: float | None, carriable: bool
) -> str | None:
    """Why a run has to stop now, if it has to.

    Arguments:
        left: seconds that all rows together still have.
        elapsed: seconds that the run has had.
        share: seconds that it has if it cannot be ended.
        need: seconds that it needs to its end; None: nobody knows yet.
        carriable: whether its checkpoint can be carried.
    """
    if left <= 0:
        return "the time was over"
    if need is None or need <= left:
        return None
    if not carriable:
        return f"{need:.0f} s to its end, and its checkpoint is too large to be carried"
    return f"{need:.0f} s to its end; others have their turn" if elapsed >= share else None


class Warden(threading.Thread):
    """Looks after a run in this process, and stops it as a user would, by a signal.

    Arguments:
        bench: whose time it is.
        folder: of the runs.
        run: that is gone on with; None: a new one.

    Attributes:
        why: why the run was stopped, or None.
    """

    def __init__(self, bench: Bench, folder: Path, run: Kept | None) -> None:
        super().__init__(daemon=True)
        self.bench, self.folder, self._run = bench, folder, run
        self._before = {other.folder for other in runs_in(folder)}
        self.why: str | None = None
        self._over = threading.Event()
        self._began = time.monotonic()
        self._share = max(SLICE, (bench.left() - RESERVE) / SHARE)
        # Read now: later the folder has the checkpoints of this process.
        self._begun = run.step if run is not None else 0
        self._pace: Pace | None = None
        self._carriable = True

    def __enter__(self) -> Warden:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def found(self) -> Kept | None:
        """The run as it stands; None while it has no folder."""
        if self._run is not None:
            runs = [run for run in runs_in(self.folder) if run.folder == self._run.folder]
        else:
            runs = [run for run in runs_in(self.folder) if run.folder not in self._before]
        return runs[-1] if runs else None

    def run(self) -> None:
        """Until the run is over."""
        while not self._over.wait(LOOK):
            if self.why is None and (why := self._look()) is not None and can_be_stopped():
                self.why = why
                os.kill(os.getpid(), signal.SIGUSR1)

    def _look(self) -> str | None:
        # The run writes meanwhile: what was listed may be gone. Its time counts all the same.
        with suppress(OSError):
            self._read()
        need = self._pace.need() if self._pace is not None else None
        elapsed = time.monotonic() - self._began
        left = self.bench.left() - RESERVE
        return why_stop(left, elapsed, self._share, need, self._carriable)

    def _read(self) -> None:
        run = self.found()
        if run is None:
            return
        self._pace = self._pace or Pace(run.record["config"]["steps"])
        if run.step > self._begun:
            self._pace.look(run.step, time.monotonic())
        size = sum(path.stat().st_size for path in run.files())
        self._carriable = size < self.bench.volumes * carried.VOLUME


def can_be_stopped() -> bool:
    """Whether the run listens; else the signal would end this process."""
    return signal.getsignal(signal.SIGUSR1) not in (signal.SIG_DFL, signal.SIG_IGN, None)
