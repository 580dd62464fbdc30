"""Files that a run reads: named in an option, and counted by what is in them; its weights file."""

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

    ``weights: Annotated[InputFile | None, "what the network starts from"] = None`` makes
    ``--weights PATH`` an option. A path where nothing is gets an error before anything is read. The
    sha256 of the content stands in the run's record, under ``inputs``; a run that was made with
    other content under the same path is not reused and not resumed.

    It is the text that was typed, so that whatever takes a path takes it; ``path`` is absolute.
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
    """What a path holds.

    Arguments:
        sha256: of a file's bytes, as ``sha256sum`` has it; of a folder: over a line for each file
            below it, ``path/in/it``, a zero byte and its sha256, sorted.
        bytes: of all files.
    """

    sha256: str
    bytes: int


def content_of(path: Path) -> Content:
    """The content of a file, or of all files of a folder.

    Raises:
        DataError: there is nothing, or a file cannot be read.
    """
    try:
        if path.is_dir():
            sha, size = hashlib.sha256(), 0
            for name, file in sorted(_files(path)):
                inner = _of_file(file)
                sha.update(name.encode("utf-8", "surrogateescape") + b"\0")
                sha.update(f"{inner.sha256}\n".encode())
                size += inner.bytes
            return Content(sha.hexdigest(), size)
        return _of_file(path)
    except OSError as error:
        raise DataError(f"cannot read '{path}' ({error.strerror}).") from error


def check_weights(folder: Path, record: Mapping[str, Any]) -> None:
    """Hold a run's weights file against the digest in its record.

    An older record has no digest; then only a missing file is noticed.

    Raises:
        RecordError: the file is missing, or is not the one that the run wrote.
    """
    path, written = folder / WEIGHTS, record.get("weights")
    if not path.is_file():
        if written is None and record.get("training") is None:
            raise RecordError(
                f"'{folder}' has no {WEIGHTS}: the fewshot-bench that wrote it kept no weights of "
                "a run that trains nothing. Run it again."
            )
        raise RecordError(
            f"'{folder}' has no {WEIGHTS}, which holds the weights that made its result. Put the "
            "file back, or run it again."
        )
    if written is None:
        return
    try:
        found = _of_file(path).sha256
    except OSError as error:
        raise RecordError(f"cannot read '{path}' ({error.strerror}).") from error
    if found != written["sha256"]:
        raise RecordError(
            f"'{path}' is not the file that the run wrote: its sha256 is another than in the "
            "record. Put the file back, or run it again."
        )


def _of_file(path: Path) -> Content:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return Content(sha256, file.tell())


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file below a folder, links followed, each folder once."""
    seen: set[str] = set()
    for at, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(at)
        if real in seen:  # a link back up
            folders.clear()
            continue
        seen.add(real)
        for name in names:
            file = Path(at, name)
            if file.is_file():
                yield file.relative_to(folder).as_posix(), file
