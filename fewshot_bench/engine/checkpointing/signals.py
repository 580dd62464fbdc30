"""Signals that ask a run to stop: it ends where it can go on later."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

# Of the keyboard; of a batch system that takes the machine away; what such a system can be told to
# send some time before; of a terminal that closes.
STOPPING = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
TOGETHER = 0.1  # seconds: a launcher may pass on a signal that the whole group got anyway


class Interrupted(KeyboardInterrupt):
    """A signal ended the run.

    Arguments:
        number: of the signal; the exit code of a command is 128 more.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number


class Signals:
    """Turns signals into :class:`Interrupted`. Use as a context manager.

    It is raised at once, but inside of :meth:`deferred` only noted in ``caught``, for the loop to
    look at between two steps. A second signal ends the process at once. A signal that somebody
    else handles or ignores (``nohup``) is left to them, and so are all of them outside of the main
    thread.

    Attributes:
        caught: number of the signal that came, or None.
    """

    def __init__(self) -> None:
        self.caught: int | None = None
        self._at = 0.0
        self._deferred = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for name in STOPPING:
                number = getattr(signal, name, None)  # Windows has two of them
                if number is not None and signal.getsignal(number) in (
                    signal.SIG_DFL,
                    signal.default_int_handler,
                ):
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise :class:`Interrupted` if a signal came."""
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
        now = time.monotonic()
        if self.caught is not None:
            if now - self._at > TOGETHER:
                _end(number)
            return
        self.caught, self._at = number, now
        if not self._deferred:
            raise Interrupted(number)


def _end(number: int) -> None:
    """End the process now; every file is whole at any moment."""
    if sys.stderr is not None and sys.stderr.isatty():
        os.write(sys.stderr.fileno(), b"\x1b[?25h\n")  # a progress bar hides the cursor
    os._exit(128 + number)
