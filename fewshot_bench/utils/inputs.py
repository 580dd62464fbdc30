"""Files that a run reads: options that name them, and digests of their content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewshot_bench.errors import DataError, RecordError

WEIGHTS = "weights.safetensors"  # in the folder of every finished run


class InputFile(str):
    """The path of a file or folder that a plugin reads; the type of an option that takes one.

    ``weights: Annotated[InputFile | None, "initial weights of the network"] = None`` makes
    ``--weights PATH`` an option. A path that does not exist is an error before anything is read.
    The sha256 of the content is in the run's record, under ``inputs``; a run with other content
    under the same path is neither reused nor resumed.

    It is the text as typed, so it goes wherever a path goes.
    """

    __slots__ = ()

    def __new__(cls, path: str | os.PathLike[str]) -> InputFile:
        return super().__new__(cls, os.fspath(path))

    @property
    def path(self) -> Path:
        """The absolute path, ``~`` expanded."""
        return Path(os.path.abspath(os.path.expanduser(self)))


@dataclass(frozen=True)
class Content:
    """Digest and size of a file or folder.

    ``sha256`` is of a file's bytes; of a folder: over a line for each file in it and below,
    ``relative/path``, a zero byte and its sha256, sorted. ``bytes`` is of all files.
    """

    sha256: str
    bytes: int


def content_of(path: Path) -> Content:
    """The content of a file, or of all files in a folder; DataError if one cannot be read."""
    try:
        if not path.is_dir():
            return file_content(path)
        sha, size = hashlib.sha256(), 0
        for name, file in sorted(_files(path)):
            inner = file_content(file)
            sha.update(name.encode("utf-8", "surrogateescape") + b"\0")
            sha.update(f"{inner.sha256}\n".encode())
            size += inner.bytes
        return Content(sha.hexdigest(), size)
    except OSError as error:
        raise DataError(f"cannot read '{path}' ({error.strerror}).") from error


def file_content(path: Path) -> Content:
    """The content of a file; raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return Content(hashlib.file_digest(file, "sha256").hexdigest(), file.tell())


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file in a folder and below, links followed, each folder once."""
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link back up
            folders.clear()
            continue
        seen.add(real)
        for file in (Path(parent, name) for name in names):
            if file.is_file():
                yield file.relative_to(folder).as_posix(), file


def check_weights(folder: Path, record: Mapping[str, Any]) -> None:
    """Raise RecordError unless the weights file in a run's folder is the one of its record."""
    path, again = folder / WEIGHTS, "Put the file back, or run it again."
    if record["weights"] is None or not path.is_file():
        what = f"'{folder}' has no {WEIGHTS}, which holds the weights that made its result"
        raise RecordError(f"{what}. {again}")
    try:
        found = file_content(path).sha256
    except OSError as error:
        raise RecordError(f"cannot read '{path}' ({error.strerror}).") from error
    if found != record["weights"]["sha256"]:
        differs = "its sha256 differs from that in the record"
        raise RecordError(f"'{path}' is not the file that the run wrote: {differs}. {again}")
