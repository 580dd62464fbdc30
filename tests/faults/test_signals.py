"""Signals: a run ends where it can be resumed, and says how."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fewshot_bench.engine.checkpointing import FOLDER, TOGETHER, Interrupted, Signals
from fewshot_bench.results.record import read_record
from tests.command_line import InProcess, Process
from tests.faults.broken_off import SMALL, assert_same, command, newest
from tests.patience import PATIENCE

# A method whose steps last while a file is there, so that a signal finds it in one.
SLOW = '''
import time
from pathlib import Path

import torch
from torch import nn

from fewshot_bench import Method


class Slow(Method):
    """Class means of one linear layer; its steps wait."""

    wants_backbone = False

    def __init__(self, task):
        super().__init__(task)
        self.layer = nn.Linear(task.image_shape[1] ** 2, 4)

    def adapt(self, support):
        return self.layer(support.images.flatten(3)).mean(2)

    def predict(self, state, query):
        return -torch.cdist(self.layer(query.flatten(2)), state)

    def losses(self, episode):
        # Before the training it is looked at with two tasks; a step has three.
        step = len(episode) > 2
        if step:
            Path("stepping").touch()
        while step and Path("hold").exists():
            time.sleep(0.01)
        return super().losses(episode)
'''
SETTINGS: dict[str, Any] = SMALL | {"engine": "eager", "steps": 40, "task_batch": 3,
                            "validate_every": 0}  # fmt: skip
ENDLESS = {"steps": 1_000_000, "checkpoint_every": 1}
OTHERS = ("SIGINT", "SIGUSR1")  # than SIGTERM and SIGHUP, which have tests of their own


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "slow.py").write_text(SLOW, "utf-8")
    return tmp_path


def until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait for a condition while a process runs."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def checkpoints(runs: Path) -> list[Path]:
    return sorted(runs.glob(f"*/{FOLDER}/step-*"))


def test_each_signal_ends_with_a_checkpoint_and_the_command_that_resumes(
    home: Path, data_cache: Path, fsb_process: Process
) -> None:
    going = {}
    for name in OTHERS:
        settings = SETTINGS | ENDLESS | {"cache_dir": str(data_cache)}
        arguments = command("./slow.py:Slow", settings | {"runs_dir": f"runs of {name}"})
        going[name] = fsb_process.start(*arguments, at=home)
    for name, process in going.items():
        runs = home / f"runs of {name}"
        until(lambda runs=runs: checkpoints(runs), process)
        process.send_signal(getattr(signal, name))
        out, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 128 + getattr(signal, name)
        folder = newest(runs)
        line = said.splitlines()[-1]
        path = shlex.quote(str(folder.relative_to(home)))
        assert line == f"interrupted by {name}; to resume: fsb resume {path} --trust-code"
        assert "Traceback" not in said
        assert not out
        record = read_record(folder)
        assert record["status"] == "interrupted"
        at = f"step-{record['training']['steps']:08d}"
        assert checkpoints(runs)[-1].name.startswith(at)


def test_the_printed_command_gives_the_uninterrupted_run(
    home: Path, data_cache: Path, fsb: InProcess, fsb_process: Process
) -> None:
    settings = SETTINGS | {"cache_dir": str(data_cache)}
    fsb(*command("./slow.py:Slow", settings | {"runs_dir": "whole"}), at=home).succeeded()
    (home / "stepping").unlink()
    (home / "hold").touch()
    process = fsb_process.start(*command("./slow.py:Slow", settings), at=home)
    until((home / "stepping").exists, process)
    process.terminate()
    (home / "hold").unlink()
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM
    program, *arguments = shlex.split(said.splitlines()[-1].partition("to resume: ")[2])
    assert program == "fsb"
    assert "after step" in fsb(*arguments, at=home).succeeded().err
    folder = newest(home / "runs")
    assert_same(newest(home / "whole"), folder)
    assert "is finished; nothing to resume" in fsb(*arguments, at=home).succeeded().err
    # The same command as at first reuses it, too.
    again = fsb(*command("./slow.py:Slow", settings), at=home).succeeded()
    assert f"Reusing finished run 'runs/{folder.name}'; --if-exists fresh" in again.err
    assert newest(home / "runs") == folder


def test_a_second_signal_ends_at_once(home: Path, data_cache: Path, fsb_process: Process) -> None:
    (home / "hold").touch()
    words = command("./slow.py:Slow", SETTINGS | {"cache_dir": str(data_cache)})
    process = fsb_process.start(*words, at=home)
    until((home / "stepping").exists, process)
    process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)  # the step has to end first
    # Where the machine is so busy that the first has not yet been heard, it and the next are one.
    begin = time.monotonic()
    while process.poll() is None and time.monotonic() - begin < PATIENCE:
        process.terminate()
        time.sleep(2 * TOGETHER)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM
    # What stands there is a run without a checkpoint, which can be resumed.
    assert read_record(newest(home / "runs"))["status"] == "running"


def test_an_ignored_signal_stays_ignored(home: Path, data_cache: Path) -> None:
    """``nohup`` starts a command so."""
    words = command("./slow.py:Slow", SETTINGS | {"cache_dir": str(data_cache)})
    typed = shlex.join([sys.executable, "-m", "fewshot_bench", *words])
    (home / "hold").touch()
    process = subprocess.Popen(
        ["sh", "-c", f"trap '' HUP; exec {typed}"], cwd=home, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    until((home / "stepping").exists, process)
    process.send_signal(signal.SIGHUP)
    (home / "hold").unlink()
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert read_record(newest(home / "runs"))["status"] == "completed"


# Runs a command in a terminal of its own, closes that when a file is there, tells the exit code.
TERMINAL = """
import os, pty, signal, sys, time
pid, terminal = pty.fork()
if pid == 0:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored, where the tests run under nohup
    os.execv(sys.executable, [sys.executable, "-m", "fewshot_bench", *sys.argv[2:]])
os.set_blocking(terminal, False)
while not os.path.exists(sys.argv[1]):
    try:
        os.read(terminal, 1 << 16)
    except BlockingIOError:
        time.sleep(0.01)
os.close(terminal)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_terminal_that_closes_leaves_a_checkpoint(home: Path, data_cache: Path) -> None:
    settings = SETTINGS | ENDLESS | {"cache_dir": str(data_cache)}
    said = subprocess.run(
        [sys.executable, "-c", TERMINAL, "stepping", *command("./slow.py:Slow", settings)],
        cwd=home, capture_output=True, text=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    assert said.stdout == f"{128 + signal.SIGHUP}\n"
    record = read_record(newest(home / "runs"))
    assert record["status"] == "interrupted"
    assert record["error"] == "interrupted by SIGHUP"
    assert checkpoints(home / "runs")


def test_handlers_of_others_are_left_alone() -> None:
    theirs: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: theirs.append(number))
    try:
        with Signals() as signals:
            signal.raise_signal(signal.SIGUSR1)
            assert (theirs, signals.caught) == ([signal.SIGUSR1], None)
            with pytest.raises(Interrupted, match="SIGTERM"):
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C is heard, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_a_signal_is_only_noted_while_weights_move() -> None:
    with Signals() as signals:

        def training() -> None:
            with signals.deferred():
                signal.raise_signal(signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)  # a launcher's second one, at the same time
                assert signals.caught == signal.SIGINT
                with pytest.raises(Interrupted), signals.deferred(False):
                    pytest.fail("what may be broken off was begun")

        with pytest.raises(Interrupted):
            training()
        with pytest.raises(Interrupted):
            signals.check()
