"""A terminal may close while a command runs: what is said then goes nowhere, and breaks nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TextIO


def forsake(stream: TextIO) -> None:
    """Let everything that this stream is still given go nowhere."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class Lasting:
    """A stream whose reader may go away.

    Arguments:
        stream: that is written to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, if somebody is there."""
        try:
            return self._stream.write(text)
        except OSError:
            forsake(self._stream)
            return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush, if somebody is there."""
        try:
            self._stream.flush()
        except OSError:
            forsake(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
