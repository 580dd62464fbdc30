"""Output: tables on standard output, lines on standard error, and a reader that may go away."""

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from fewshot_bench.utils.text import printable


def screen(**options: Any) -> Any:
    """A rich console on standard output, without markup; a closed pipe is :func:`main`'s."""
    from rich.console import Console

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            """Rich would end the process here, with a code that means a failure."""
            raise BrokenPipeError

    return Screen(markup=False, highlight=False, **options)


def table_of(columns: Iterable[str], rows: Iterable[Iterable[str]], overflow: Any) -> Any:
    """A rich table without lines."""
    from rich.table import Column, Table

    table = Table(*(Column(name, overflow=overflow) for name in columns), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    return table


class Lasting:
    """A stream whose reader may go away: what is written then, and later, is discarded."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @contextmanager
    def _discarding(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)

    def write(self, text: str) -> int:
        with self._discarding():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._discarding():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def print_error(text: str) -> None:
    """Print to standard error; nothing if it is closed."""
    print(text, file=Lasting(sys.stderr), flush=True)


class LogLines(logging.Handler):
    """Shows the package's log, a record as one line, beside a progress display if there is one."""

    show: Callable[[str], None] = staticmethod(print_error)

    def emit(self, record: logging.LogRecord) -> None:
        level = "warning: " if record.levelno >= logging.WARNING else ""
        self.show(level + printable(record.getMessage()))


LOG_LINES = LogLines(logging.INFO)


def show_log() -> None:
    """Show notes and warnings of the package on standard error, as the command line does."""
    logger = logging.getLogger("fewshot_bench")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if LOG_LINES not in logger.handlers:
        logger.addHandler(LOG_LINES)
