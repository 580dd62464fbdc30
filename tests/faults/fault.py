"""A fault, what is typed to meet it, and how it is run: in this process, in a folder of its own.

``docs/reference/faults.md`` is the table of all of them with the message and the exit code of each;
``python tests/faults/page.py`` writes it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from unittest import mock

from fewshot_bench.utils.text import printable
from tests.command_line import Answer, fsb
from tests.patience import PATIENCE

OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # by a terminal
Spoil = Callable[["World"], contextlib.AbstractContextManager[None] | None]
SMALL = (
    "--image-size=16 --train-classes=6 --validation-classes=0 --test-classes=6 --way=3 --shot=1 "
    "--query=2 --episodes=3 --device=cpu --cache-dir=cache"
)
TRAINS = f"{SMALL} --train-way=3 --steps=2 --task-batch=2 --backbone-channels=2"
IMAGES = (
    "--image-size=8 --way=2 --shot=1 --query=1 --episodes=2 --validation-share=0 "
    "--test-share=0.4 --cache-dir=cache"
)
STANDS = {"SMALL": SMALL, "TRAINS": TRAINS, "IMAGES": IMAGES}


@dataclass(frozen=True)
class Fault:
    """Something wrong, and what meets it.

    Arguments:
        what: it is, for the table.
        typed: behind ``fsb``. ``SMALL`` and ``TRAINS`` stand for the options of a tiny run.
        spoil: makes the fault in a world; may return what has to be undone.
        code: the exit code.
        told: the beginning of the line that counts, where it is not the error.
        runs: finished runs that the world begins with: ``runs/a`` (no training) and ``runs/b``.
        environment: variables; None takes one away.
        why_not: a reason to skip it here, asked when it is run.
    """

    what: str
    typed: str
    spoil: Spoil = lambda _: None
    code: int = 2
    told: str = "error: "
    runs: str = ""
    environment: dict[str, str | None] = field(default_factory=dict)
    why_not: Callable[[], str | None] = lambda: None

    @property
    def in_a_shell(self) -> bool:
        """Whether it needs a process of its own: ``typed`` is then a whole line for a shell."""
        return self.typed.startswith(("fsb", "HOME=", "LC_ALL="))


@dataclass(frozen=True)
class World:
    """A folder with whatever a fault needs."""

    at: Path

    def run(self, name: str = "a") -> Path:
        """The folder of one of its runs."""
        return self.at / "runs" / name

    def write(self, path: str, content: str | bytes) -> Path:
        """A file in it."""
        target = self.at / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        return target


@cache
def _made(kind: str, folder: str) -> Path:
    """A finished run to copy, made once."""
    where = Path(folder) / kind
    where.mkdir()
    with contextlib.chdir(where):
        options = SMALL if kind == "nearest-centroid" else TRAINS
        fsb("run", kind, *options.split(), at=where).succeeded()
    return next((where / "runs").iterdir())


def make_world(fault: Fault, at: Path, stock: Path) -> World:
    """The world of a fault, whole so far.

    Arguments:
        fault: says what runs it has.
        at: its folder; made.
        stock: a folder for what is copied.
    """
    at.mkdir(parents=True)
    for name in fault.runs:
        kind = {"a": "nearest-centroid", "b": "protonet"}[name]
        shutil.copytree(_made(kind, str(stock)), at / "runs" / name)
    return World(at)


def meet(fault: Fault, at: Path, stock: Path, debug: bool = False) -> Answer:
    """Make the fault, type what meets it, and undo what has to be undone."""
    world = make_world(fault, at, stock)
    typed = fault.typed
    for name, options in STANDS.items():
        typed = typed.replace(name, options)
    words = [word.replace("␣", " ") for word in typed.split()]
    changed = {"COLUMNS": "200", "FSB_DATA": None, "FSB_PLUGINS": None, **fault.environment}
    with mock.patch.dict(os.environ), _undoing(fault.spoil(world)), contextlib.chdir(at):
        for name, value in changed.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        return in_a_shell(typed) if fault.in_a_shell else fsb(*words, *["--debug"] * debug)


def in_a_shell(line: str) -> Answer:
    """The command in a shell of its own."""
    python = f"{shlex.quote(sys.executable)} -m fewshot_bench"
    script = "set -o pipefail; " + re.sub(r"(?<![-\w])fsb ", f"{python} ", line)
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    return Answer(done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def _undoing(made: contextlib.AbstractContextManager[None] | None) -> Iterator[None]:
    with made or contextlib.nullcontext():
        yield


def message(fault: Fault, answer: Answer, at: Path) -> str:
    """The line that counts, without what changes from run to run."""
    lines = [line for line in answer.err.splitlines() if line.startswith(fault.told)]
    line = lines[-1] if lines else answer.err.strip() or "(nothing)"
    line = line.replace(str(at), "HERE").replace(os.path.realpath(at), "HERE")
    line = re.sub(r"\d{8}T\d{6}-[0-9a-f]{4}", "TIME", line)
    line = re.sub(r"\.partial\.\w+|\.[a-z]+\.\w{8}(?=['\"])", "", line)
    line = re.sub(r"unpacks from \d+", "unpacks from N", line)  # as small as this zlib packs it
    line = re.sub(r"line \d+ column \d+ \(char \d+\)", "line L column C", line)
    return re.sub(r"\s+", " ", line)


def row(fault: Fault, answer: Answer, at: Path) -> str:
    """Its row of the table."""
    typed = fault.typed.replace("␣", "\\ ")
    for name in STANDS:
        typed = typed.replace(name, "...")
    told = message(fault, answer, at) if fault.told else ""
    typed = typed if fault.in_a_shell else f"fsb {typed}"
    cells = (fault.what, f"`{typed}`", str(answer.code), f"`{told}`" if told else "")
    line = " | ".join(cell.replace("|", r"\|") for cell in cells)
    return f"| {re.sub(r'x{50,}|9{30,}', lambda long: long[0][:8] + '...', printable(line))} |"
