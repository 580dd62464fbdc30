"""Image files of a directory or of a zip archive, in one shape."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from fewshot_bench.data import (
    IMAGE_SUFFIXES,
    file_stamp,
    image_members,
    open_zip,
    read_image,
    read_member,
)
from fewshot_bench.errors import DataError

EXPECTED = "one folder of PNG or JPEG images per class"


class Files(Protocol):
    """Images by their path below the folder (``class/image.png``), sorted."""

    names: list[str]
    stamp: str  # changes when a file does

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            DataError: it cannot be read.
        """


@contextmanager
def open_files(path: Path) -> Iterator[Files]:
    """The images of a directory or zip archive.

    Raises:
        DataError: neither, or not one folder per class.
    """
    if path.is_dir():
        yield _Directory(path)
    elif path.exists():
        with open_zip(path, EXPECTED) as archive:
            yield _Archive(archive)
    else:
        raise DataError(f"no folder or zip archive '{path}'; expected {EXPECTED}.")


def class_of(name: str) -> str:
    """The folder that an image lies in."""
    return name.split("/")[0]


def _below_top(paths: list[str], where: str) -> tuple[list[str], str]:
    """Paths as ``class/file``, and the folders above that all of them share.

    Raises:
        DataError: no image, or images that do not lie one folder deep.
    """
    if not paths:
        raise DataError(f"'{where}' holds no PNG or JPEG image; expected {EXPECTED}.")
    parts = [PurePosixPath(path).parts for path in paths]
    top = 0
    while all(len(p) > top + 2 for p in parts) and len({p[top] for p in parts}) == 1:
        top += 1
    for path, p in zip(paths, parts, strict=True):
        if len(p) != top + 2:
            raise DataError(
                f"'{where}': '{path}' is not in a class's folder; expected {EXPECTED}. Move it "
                "there or away; if folders such as train/ and test/ hold the classes, put the "
                "classes side by side and name the split with --split-file."
            )
    prefix = "/".join(parts[0][:top])
    return ["/".join(p[top:]) for p in parts], f"{prefix}/" if prefix else ""


@dataclass
class _Archive:
    names: list[str]
    stamp: str

    def __init__(self, archive: zipfile.ZipFile) -> None:
        infos = image_members(archive)
        where = str(archive.filename)
        self.names, self._prefix = _below_top([info.filename for info in infos], where)
        self._archive = archive
        self._infos = dict(zip(self.names, infos, strict=True))
        # The members' names, sizes and checksums, and the file's own state: a CRC can be forged.
        lines = [f"{info.filename}:{info.file_size}:{info.CRC}" for info in infos]
        self.stamp = _stamp(iter([*lines, file_stamp(Path(where))]))

    def read(self, name: str) -> bytes:
        return read_member(self._archive, self._infos[name])


@dataclass
class _Directory:
    names: list[str]
    stamp: str

    def __init__(self, folder: Path) -> None:
        files = {
            path.relative_to(folder).as_posix(): path
            for path in sorted(folder.rglob("*"))
            if path.suffix.lower() in IMAGE_SUFFIXES
            and not any(part.startswith(".") for part in path.relative_to(folder).parts)
            and path.is_file()
        }
        paths = sorted(files)
        self.names, prefix = _below_top(paths, str(folder))
        self._top = folder / prefix
        self.stamp = _stamp(
            f"{folder.resolve()}/{path}:{file_stamp(files[path])}" for path in paths
        )

    def read(self, name: str) -> bytes:
        return read_image(self._top / name)


def _stamp(lines: Iterator[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
