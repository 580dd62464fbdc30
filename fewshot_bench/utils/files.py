"""Files that survive a crash, and folders that one process at a time writes to."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

__all__ = ["PART", "Busy", "locked", "replacing", "sweep", "sync_folder"]

PART = ".part"  # the end of a name under which a file is written until it is whole


class Busy(Exception):
    """Another process holds the lock."""


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write a file: a reader, or a crash at any moment, finds the old content or the new.

    The content goes to a hidden file beside it, which takes the name when all of it is on the
    disk. What is raised inside, or by the system, leaves the old content.

    Arguments:
        path: of the file.

    Raises:
        OSError: it cannot be written.
    """
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(partial)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk; where a system has no such thing, nothing."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sweep(folder: Path, of: str = "") -> None:
    """Remove what killed processes left unfinished; to be called by who holds the lock.

    Arguments:
        folder: where.
        of: name of the file whose leftovers are meant; default: of all.
    """
    for left in folder.glob(f".{of}*{PART}"):
        with suppress(OSError):
            left.unlink()


@contextmanager
def locked(path: Path, wait: float = -1) -> Iterator[None]:
    """Hold a lock file. The system frees it when the process ends, however it ends.

    A file system that has no locks, or cannot be written, does without: what is written there is
    whole all the same, and at worst made twice.

    Arguments:
        path: of the lock file, which stays.
        wait: seconds; negative: for as long as it takes.

    Raises:
        Busy: another process has it still.
    """
    lock = FileLock(path, timeout=wait)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o644))  # a library that polls waits for it
        lock.acquire()
    except Timeout as error:
        raise Busy(str(path)) from error
    except (OSError, NotImplementedError):
        yield
        return
    try:
        yield
    finally:
        lock.release()
