"""Decoded images in a cache folder: written once, memory-mapped at the next start.

A cache file is a ``.npy`` file followed by JSON (class names, counts, ...) and a checksum; one that
fails the check is made again. Of several processes that need it, one makes it and the others wait.
A folder that cannot be written only means that nothing is cached.
"""

import hashlib
import json
import mmap
import os
import shutil
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import platformdirs

from fewshot_bench.errors import DataError
from fewshot_bench.utils.files import locked, replacing, sweep

UNUSED = 30 * 24 * 3600  # seconds after which another code's folder is removed
_MAGIC = b"fsbcache"
_TAIL = struct.Struct("<QI8s")  # bytes of JSON, CRC-32 of everything before, magic


@dataclass(frozen=True)
class Decoded:
    """Images uint8 [M, C, H, W], a read-only memory map if from the cache, and JSON values."""

    images: npt.NDArray[np.uint8]
    meta: dict[str, Any] = field(default_factory=dict)


def cache_root(cache_dir: str | Path | None = None) -> Path:
    """The folder of all caches: ``cache_dir``, or the user's cache folder of this platform."""
    if cache_dir is not None:
        return expand_home(cache_dir)
    try:
        folder = platformdirs.user_cache_path("fewshot-bench", appauthor=False)
    except RuntimeError:  # raised by newer versions; older ones leave the '~'
        folder = Path("~")
    if not folder.is_absolute():
        raise DataError("this user has no home folder for a cache; name one with --cache-dir.")
    return folder


def expand_home(path: str | Path) -> Path:
    """The path with ``~`` replaced by the home folder; DataError if there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(f"'{path}': no such home folder; write the path in full.") from error


def cache_folder(dataset_folder: Path, code: str, root: Path | None) -> Path:
    """The folder for what a data set decodes, below ``dataset_folder``.

    It is specific to the code and the folder of its files (``root``). Others that were not used for
    ``UNUSED`` seconds are removed.
    """
    where = "" if root is None else str(root.resolve())
    name = hashlib.blake2b(f"{_own_code()}\0{code}\0{where}".encode(), digest_size=6).hexdigest()
    folder, now = dataset_folder / f"code-{name}", time.time()
    with suppress(OSError):
        for other in dataset_folder.glob("code-*"):
            if other != folder and now - other.stat().st_mtime > UNUSED:
                shutil.rmtree(other, ignore_errors=True)
        if folder.is_dir():
            os.utime(folder)  # in use
    return folder


@cache
def _own_code() -> str:
    """A digest of this room, which reads and resizes images."""
    sha = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        sha.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return sha.hexdigest()


def file_stamp(path: Path) -> str:
    """Changes whenever a file does, without reading it: the last status change cannot be set."""
    state = path.stat()
    return f"{state.st_size}:{state.st_mtime_ns}:{state.st_ctime_ns}:{state.st_ino}"


def cached(
    folder: Path, name: str, key: Mapping[str, Any], build: Callable[[], Decoded]
) -> Decoded:
    """The result of ``build``, from the cache if it is there and intact.

    Arguments:
        name: readable beginning of the file's name in ``folder``.
        key: everything that the result depends on (digest of the source, options); JSON values.
    """
    digest = hashlib.blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=10).hexdigest()
    path = folder / f"{name}-{digest}.npy"
    if found := _read(path):
        return found
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.stem}.lock")):
        if found := _read(path):  # another process may have made it meanwhile
            return found
        sweep(path.parent, path.name)
        made = build()
        # A full or read-only disk only costs time at the next start.
        with suppress(OSError), replacing(path) as file:
            np.save(file, np.ascontiguousarray(made.images), allow_pickle=False)
            meta = json.dumps(made.meta).encode()
            file.write(meta)
            file.flush()
            file.write(_TAIL.pack(len(meta), _crc32(file, file.tell()), _MAGIC))
    return made


def _read(path: Path) -> Decoded | None:
    """The content of a cache file; None: there is none, or it is damaged."""
    try:
        with path.open("rb") as file:
            end = file.seek(-_TAIL.size, os.SEEK_END)
            length, checksum, magic = _TAIL.unpack(file.read())
            if magic != _MAGIC or length > end or _crc32(file, end) != checksum:
                return None
            file.seek(end - length)
            meta = json.loads(file.read(length))
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return Decoded(images, meta)


def _crc32(file: IO[bytes], length: int) -> int:
    """Of the first bytes of a file; memory-mapped, since it may be larger than the memory."""
    with mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ) as content:
        return zlib.crc32(content)
