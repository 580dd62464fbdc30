"""Runs in few files of a bounded size, to be carried from one visit at a GPU to the next.

What may come back from such a machine is counted in files and in their size, and a checkpoint may
be larger than one file may be. So runs are one compressed tar stream that is cut into volumes,
``runs.tar.gz.00``, ``runs.tar.gz.01``, ...: one after the other, they are an ordinary archive
(``cat runs.tar.gz.* | tar xz``).
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from fewshot_bench.engine.checkpointing import Store, step_of
from fewshot_bench.results.record import RECORD

NAME = "runs.tar.gz"
VOLUME = 15 * 2**20  # bytes
WEIGHTS = ".safetensors"
GOING = ("running", "interrupted")
LEAST = 4096  # of a volume: what a tar needs beside the files
# What reading an archive raises that is cut off or changed.
DAMAGED = (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Kept:
    """A run in a folder.

    Arguments:
        folder: of the run.
        record: its record as it stands.
    """

    folder: Path
    record: dict[str, Any]

    @property
    def finished(self) -> bool:
        """Whether it has a result."""
        return bool(self.record["status"] == "completed")

    @property
    def going(self) -> bool:
        """Whether it can be gone on with."""
        return self.record["status"] in GOING

    @property
    def step(self) -> int:
        """That its newest checkpoint is of; 0 without one."""
        paths = Store(self.folder).paths()
        return step_of(paths[0]) if paths else 0

    @property
    def reached(self) -> tuple[bool, int, int]:
        """How far it is: the further one of two runs has the larger value.

        Of two copies that are as far, it is the one with more files: the other is from an archive
        that was cut off.
        """
        return self.finished, self.step, len(self.files())

    def files(self) -> list[Path]:
        """What a result or a resume needs, and no more.

        Of a finished run no checkpoints; of an unfinished one the newest checkpoint, which has
        the weights, too.
        """
        checkpoints = Store(self.folder)
        others = [
            path
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and checkpoints.folder not in path.parents
        ]
        if self.finished:
            return others
        return [*(path for path in others if path.suffix != WEIGHTS), *checkpoints.paths()[:1]]


def runs_in(folder: Path) -> list[Kept]:
    """The runs of a folder, the oldest first; what has no readable record is none."""
    found = []
    for path in sorted(folder.glob(f"*/{RECORD}")):
        try:
            found.append(Kept(path.parent, json.loads(path.read_text("utf-8"))))
        except (OSError, ValueError):
            continue
    return found


def keep(runs: Iterable[Kept], folder: Path, volumes: int) -> dict[str, str]:
    """Write runs into volumes, in this order, as long as there is room.

    Of a finished run that does not fit whole, everything but its weights is tried.

    Arguments:
        runs: what matters most first.
        folder: for the volumes; those of before are replaced when the new ones are whole.
        volumes: how many there may be.

    Returns:
        {name of a run: what was left out of it, in words}; nothing of those that are whole.
    """
    room, left_out, chosen = volumes * VOLUME - LEAST, dict[str, str](), list[tuple[Path, str]]()
    for run in runs:
        files = run.files()
        size = _packed(files, room)
        if size > room and run.finished:
            small = [path for path in files if path.suffix != WEIGHTS]
            if _packed(small, room) <= room:
                left_out[run.folder.name] = f"its weights ({size >> 20} MiB)"
                files, size = small, _packed(small, room)
        if size > room:
            left_out[run.folder.name] = f"everything: {size / 2**20:.0f} MiB do not fit"
            continue
        room -= size
        chosen += [(path, f"{run.folder.name}/{path.relative_to(run.folder)}") for path in files]
    out = _Volumes(folder)
    _pack(chosen, out)
    out.finish()
    return left_out


def _pack(files: Iterable[tuple[Path, str]], out: io.RawIOBase) -> None:
    """Write files under these names as a compressed tar."""
    with (
        gzip.GzipFile(fileobj=cast(BinaryIO, out), mode="wb", compresslevel=6, mtime=0) as squeezed,
        tarfile.open(fileobj=squeezed, mode="w|") as archive,
    ):
        for path, name in files:
            archive.add(path, name)


class _Volumes(io.RawIOBase):
    """A file that is cut into volumes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._number, self._file, self._written = folder, 0, None, 0

    def write(self, content: Any) -> int:
        """Add to the current volume, then to the next."""
        rest = memoryview(content)
        while len(rest):
            if self._file is None:
                self._file = self._part(self._number).open("wb")
                self._written = 0
            now = rest[: VOLUME - self._written]
            self._file.write(now)
            self._written += len(now)
            rest = rest[len(now) :]
            if self._written == VOLUME:
                self._close()
        return len(content)

    def finish(self) -> None:
        """Give the volumes their names, and remove those of before."""
        self._close()
        before = set(volumes_of(self.folder))
        for number in range(self._number):
            path = self.folder / f"{NAME}.{number:02}"
            self._part(number).replace(path)
            before.discard(path)
        for path in before:
            path.unlink()

    def _part(self, number: int) -> Path:
        return self.folder / f"{NAME}.{number:02}.part"

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self._number += 1


def _packed(files: list[Path], room: int) -> int:
    """What files take in an archive of their own; roughly where that is far too much."""
    plain = sum(path.stat().st_size for path in files)
    if plain > 2 * room:  # numbers of a training hardly become smaller
        return plain
    out = _Counted()
    _pack([(path, path.name) for path in files], out)
    return out.count


class _Counted(io.RawIOBase):
    """Counts what is written."""

    count = 0

    def write(self, content: Any) -> int:
        self.count += len(content)
        return len(content)


def volumes_of(folder: Path) -> list[Path]:
    """The volumes of a folder, in order."""
    return sorted(p for p in folder.glob(f"{NAME}.*") if p.suffix[1:].isdigit())


def unpack(folder: Path, into: Path) -> list[str]:
    """Put the runs of a folder's volumes, archives (``.zip``) and folders into another one.

    Two copies of a run may be of different visits. The finished one stays, else the one with the
    newest checkpoint, else the one with more files; of two that are equal, the one that is there
    already.

    Returns:
        What went wrong, in lines.
    """
    problems, volumes = [], volumes_of(folder)
    for path in (*volumes[:1], *sorted(folder.glob("*.zip"))):
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)
            try:
                if path.suffix == ".zip":
                    _extract_zip(path, place)
                else:
                    _extract_volumes(volumes, place)
            except DAMAGED as error:
                problems.append(f"{path.name}: {error}")
            _take(place, into)
    if folder.resolve() != into.resolve():
        _take(folder, into)
    return problems


def _take(folder: Path, into: Path) -> None:
    """Copy the runs of a folder that are further than their copies in the other one."""
    there = {run.folder.name: run for run in runs_in(into)}
    for run in runs_in(folder):
        other = there.get(run.folder.name)
        if other is None or run.reached > other.reached:
            copy = into / run.folder.name
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(run.folder, copy)


def _extract_volumes(volumes: list[Path], into: Path) -> None:
    with tarfile.open(fileobj=cast(BinaryIO, _Joined(volumes)), mode="r|gz") as archive:
        for member in archive:
            with _whole(into, member.name):
                archive.extract(member, into, filter="data")


def _extract_zip(path: Path, into: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():  # zipfile lets no name leave the folder
            with _whole(into / path.stem, name):
                archive.extract(name, into / path.stem)


@contextmanager
def _whole(into: Path, name: str) -> Iterator[None]:
    """Write a file in this block; where that fails there is none: half a checkpoint is no step."""
    try:
        yield
    except DAMAGED:
        path = (into / name).resolve()
        if path.is_relative_to(into.resolve()) and path.is_file():
            path.unlink()
        raise


class _Joined(io.RawIOBase):
    """Volumes read as one file."""

    def __init__(self, paths: list[Path]) -> None:
        self._chunks = self._read(paths)
        self._rest = b""

    @staticmethod
    def _read(paths: list[Path]) -> Iterator[bytes]:
        for path in paths:
            with path.open("rb") as file:
                while chunk := file.read(2**20):
                    yield chunk

    def read(self, size: int = -1) -> bytes:
        """So many bytes, fewer at the end."""
        while size < 0 or len(self._rest) < size:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            self._rest += chunk
        size = len(self._rest) if size < 0 else size
        found, self._rest = self._rest[:size], self._rest[size:]
        return found
