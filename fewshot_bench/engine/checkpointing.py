"""Checkpointing and signal handling.

A checkpoint is one safetensors file, named by its step and its sha256: a name that does not fit the
content shows damage. Reading one runs no code. A signal ends a run where it can be resumed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save

from fewshot_bench.config.schema import Every
from fewshot_bench.engine.weights import pack, read_tensors, unpack
from fewshot_bench.errors import ConfigError, PluginError
from fewshot_bench.hooks.lifecycle import RunHooks
from fewshot_bench.utils.files import replacing, sweep, sync_folder
from fewshot_bench.utils.inputs import file_content

logger = logging.getLogger(__name__)

FOLDER = "checkpoints"
FORMAT = 1
BELONGS = ("run", "config")
_NAME = re.compile(r"step-(\d+)-([0-9a-f]{64})\.safetensors")
# Ctrl-C; a batch system's end; what it can be asked to send before; a terminal that closes.
STOPPING = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
TOGETHER = 0.1  # seconds: a launcher may pass on a signal that the whole group got anyway


class Interrupted(KeyboardInterrupt):
    """The signal of this number ended the run; the exit code of a command is 128 more."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number


class Signals:
    """Turns signals into :class:`Interrupted`. Use as a context manager.

    It is raised at once, but inside of :meth:`deferred` only noted in ``caught`` (the number). A
    second signal ends the process at once. A signal that somebody else handles or ignores
    (``nohup``) is left to them, and so are all of them outside of the main thread.
    """

    def __init__(self) -> None:
        self.caught: int | None = None
        self._at = 0.0
        self._deferred = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            # Windows has two of them.
            for number in (getattr(signal, name) for name in STOPPING if hasattr(signal, name)):
                if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        if self.caught is not None:
            raise Interrupted(self.caught)

    @contextmanager
    def deferred(self, defer: bool = True) -> Iterator[None]:
        """Only note signals for a while; with ``defer`` False, inside of that, raise at once."""
        before, self._deferred = self._deferred, defer
        try:
            if not defer:
                self.check()
            yield
        finally:
            self._deferred = before
        if not before:
            self.check()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.caught is None:
            self.caught, self._at = number, time.monotonic()
            if not self._deferred:
                raise Interrupted(number)
        elif time.monotonic() - self._at > TOGETHER:  # files are written atomically
            if sys.stderr is not None and sys.stderr.isatty():
                os.write(sys.stderr.fileno(), b"\x1b[?25h\n")  # a progress bar hides the cursor
            os._exit(128 + number)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read: written after ``step``, of the run that ``about`` describes."""

    step: int
    about: Mapping[str, Any]
    state: Any  # packed
    tensors: Mapping[str, torch.Tensor]

    def unpacked(self, device: torch.device) -> Any:
        return unpack(self.state, self.tensors, device)


class Store:
    """The checkpoints of a run in its folder ``checkpoints``: the newest, ``keep`` of them.

    ``about``: JSON values; those of ``BELONGS`` must be the same in what is read.
    """

    def __init__(
        self, run_folder: Path, keep: int = 2, about: Mapping[str, Any] | None = None
    ) -> None:
        self.folder, self.keep = run_folder / FOLDER, keep
        self.about: dict[str, Any] = json.loads(json.dumps(about or {}))

    def save(self, step: int, state: Any) -> Path:
        """Write a checkpoint, then remove those that are too many.

        ConfigError if it cannot be written, PluginError if the state holds what no checkpoint can.
        """
        tensors: dict[str, torch.Tensor] = {}
        try:
            header = {"format": FORMAT, "step": step, "about": self.about}
            header["state"] = pack(state, tensors)
            content = save(tensors, {"checkpoint": json.dumps(header)})
        except (TypeError, KeyError, SafetensorError) as error:
            raise PluginError(
                f"a checkpoint cannot hold it: {error}; numbers, strings, tensors, lists and "
                "dictionaries are possible."
            ) from error
        path = self.folder / f"step-{step:08d}-{hashlib.sha256(content).hexdigest()}.safetensors"
        try:
            if not self.folder.is_dir():
                self.folder.mkdir(parents=True)
                sync_folder(self.folder.parent)
            with replacing(path) as file:
                file.write(content)
        except OSError as error:
            raise ConfigError(
                f"cannot write the checkpoint of step {step} to '{self.folder}' "
                f"({error.strerror}); an earlier one, if there is one, stays valid"
            ) from error
        for other in self.paths():
            if step_of(other) == step and other != path:  # before the validation of that step
                other.unlink(missing_ok=True)
        self.prune(self.keep)
        return path

    def prune(self, keep: int) -> None:
        """Leave the newest ``keep`` checkpoints, and no unfinished file."""
        for path in self.paths()[keep:]:
            path.unlink(missing_ok=True)
        sweep(self.folder)

    def paths(self) -> list[Path]:
        """All checkpoints, the newest (the one of the highest step) first."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)]
        return sorted(found, key=step_of, reverse=True)

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that is undamaged and of this run; None if there is none."""
        for path in self.paths():
            found = read_checkpoint(path)
            if isinstance(found, str):
                fault = f"damaged ({found})"
            elif any(found.about.get(name) != self.about.get(name) for name in BELONGS):
                fault = "of another run or other settings"
            else:
                return found
            logger.warning("the checkpoint of step %d is %s: '%s'", step_of(path), fault, path)
        return None


def step_of(path: Path) -> int:
    found = _NAME.fullmatch(path.name)
    assert found is not None
    return int(found[1])


def read_checkpoint(path: Path) -> Checkpoint | str:
    """A checkpoint, or what is wrong with the file."""
    named = _NAME.fullmatch(path.name)
    try:
        if named is None or file_content(path).sha256 != named[2]:
            return "its sha256 is not the one in its name"
        tensors, metadata = read_tensors(path)
        header = json.loads(metadata["checkpoint"])
        if header["format"] != FORMAT:
            return f"its format is {header['format']}; this version reads {FORMAT}"
        return Checkpoint(int(header["step"]), dict(header["about"]), header["state"], tensors)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"


@dataclass
class Checkpointer:
    """Decides when a training writes its state, and finds the state to ``resume`` from.

    That is the newest undamaged checkpoint, in ``checkpoint`` until used.
    """

    store: Store | None = None
    every: Every = field(default_factory=Every)
    signals: Signals = field(default_factory=Signals)
    resume: bool = False
    hooks: RunHooks = field(default_factory=RunHooks)
    checkpoint: Checkpoint | None = field(default=None, init=False)
    _newest: int = field(default=-1, init=False)  # step of the newest one of this process

    def __post_init__(self) -> None:
        self.start(0)

    def load(self) -> int:
        """Read the checkpoint to resume from; its step, or 0."""
        if self.resume and self.store is not None:
            self.checkpoint = self.store.newest()
            if self.checkpoint is None:
                logger.info("no checkpoint to resume from; the training starts at its first step")
        return self.checkpoint.step if self.checkpoint else 0

    def start(self, step: int) -> None:
        """The interval to the next checkpoint starts now, after this step."""
        self._step, self._at = step, time.monotonic()

    def after_step(self, step: int, last: bool, state: Callable[[], Any]) -> None:
        """Write a checkpoint if it is time, or this was the last step."""
        every, elapsed = self.every, time.monotonic() - self._at
        is_time = bool(every.seconds) and elapsed >= every.seconds
        if every.steps:
            is_time = step - self._step >= every.steps
        if is_time or (last and self._newest != step):
            self.save(step, state)

    def save(self, step: int, state: Callable[[], Any]) -> None:
        """Write a checkpoint now; a write error, such as a full disk, is only logged."""
        if self.store is not None:
            try:
                path = self.store.save(step, state())
                self.hooks.checkpoint_saved(step=step, path=path)
            except ConfigError as error:
                logger.warning("%s", error)
        self._newest = step
        self.start(step)
