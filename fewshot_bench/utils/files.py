"""Files that survive a crash, and locks between processes."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

PART = ".part"  # suffix of a file that is still being written


class Busy(Exception):
    """Another process holds the lock."""


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write a file atomically: a reader, or a crash, finds the old content or the new."""
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
    """Flush the names in a folder to the disk, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sweep(folder: Path, of: str = "") -> None:
    """Remove partial files (of this name) of killed processes; call it while holding the lock."""
    for left in folder.glob(f".{of}*{PART}"):
        with suppress(OSError):
            left.unlink()


@contextmanager
def locked(path: Path, wait: float = -1) -> Iterator[None]:
    """Hold a lock file, which stays, for at most ``wait`` seconds of waiting (negative: no limit).

    Busy if another process still holds it. Without effect where the file system has no locks or
    cannot be written: files are written atomically, so at worst two processes do the same work.
    """
    lock = FileLock(path, timeout=wait)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o644))  # filelock would retry for ever
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
