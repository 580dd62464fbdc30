"""Decoded images in a cache folder: written once, memory-mapped at the next start.

A cache file is a ``.npy`` file with a tail: JSON of what else has to be known (class names,
counts), then a checksum. Anything that reads ``.npy`` reads it; a file that fails its check is
made again. Of several processes that want it, one makes it and the others wait. A folder that
cannot be written only means that nothing is cached.
"""

from __future__ import annotations

import hashlib
import json
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
from typing import Any

import numpy as np
import numpy.typing as npt
import platformdirs

from fewshot_bench.errors import DataError
from fewshot_bench.utils.files import locked, replacing, sweep

_MAGIC = b"fsbcache"
_TAIL = struct.Struct("<QI8s")  # bytes of JSON, CRC-32 of all before, magic
_CHUNK = 1 << 22
UNUSED = 30 * 24 * 3600  # seconds


@dataclass(frozen=True)
class Decoded:
    """Images and what belongs to them.

    Arguments:
        images: uint8 [M, C, H, W]; a read-only memory map when it came from the cache.
        meta: anything that JSON can hold.
    """

    images: npt.NDArray[np.uint8]
    meta: dict[str, Any] = field(default_factory=dict)


def cache_root(cache_dir: str | Path | None = None) -> Path:
    """The folder of all caches: the one given, or the user's cache folder of this platform."""
    if cache_dir is not None:
        return expanded(cache_dir)
    try:
        folder = platformdirs.user_cache_path("fewshot-bench", appauthor=False)
    except RuntimeError:  # raised by later versions; earlier ones leave the '~'
        folder = Path("~")
    if not folder.is_absolute():
        raise DataError("this user has no home folder for a cache; name one with --cache-dir.")
    return folder


def expanded(path: str | Path) -> Path:
    """The path with ``~`` as the home that it stands for.

    Raises:
        DataError: there is no such home.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(
            f"'{path}': there is no such home folder; write the path in full."
        ) from error


def cache_folder(of_dataset: Path, code: str, root: Path | None) -> Path:
    """The folder for what a data set decodes, of its own for its code and the folder of its files.

    So what older code made, or what was made from another copy of the data, is not used. Of those
    that were not used for ``UNUSED`` seconds, all but this one are removed.

    Arguments:
        of_dataset: the folder of all of a data set's.
        code: digest of the code that decodes.
        root: the folder with the files, or None.
    """
    where = "" if root is None else str(root.resolve())
    name = hashlib.blake2b(f"{_own_code()}\0{code}\0{where}".encode(), digest_size=6).hexdigest()
    folder, now = of_dataset / f"code-{name}", time.time()
    with suppress(OSError):
        for other in of_dataset.glob("code-*"):
            if other != folder and now - other.stat().st_mtime > UNUSED:
                shutil.rmtree(other, ignore_errors=True)
        if folder.is_dir():
            os.utime(folder)  # it is in use
    return folder


@cache
def _own_code() -> str:
    """A digest of the readers and resizers beside this file."""
    sha = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        sha.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return sha.hexdigest()


def state_of_file(path: Path) -> str:
    """Changes whenever a file does, without reading it.

    Size and modification time alone can be the same after a change (a copy that keeps times); the
    time of the last change of the file itself cannot be set.
    """
    state = path.stat()
    return f"{state.st_size}:{state.st_mtime_ns}:{state.st_ctime_ns}:{state.st_ino}"


def cached(
    folder: Path, name: str, key: Mapping[str, Any], build: Callable[[], Decoded]
) -> Decoded:
    """What ``build`` returns, from the cache if it is there and whole.

    Arguments:
        folder: where cache files lie; made if missing.
        name: the beginning of the file's name, for people.
        key: everything that the result depends on (digest of the source, options); JSON values.
        build: decodes the images.
    """
    digest = hashlib.blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=10).hexdigest()
    path = folder / f"{name}-{digest}.npy"
    found = _read(path)
    if found is not None:
        return found
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.stem}.lock")):
        found = _read(path)  # another process may have made it meanwhile
        if found is not None:
            return found
        sweep(path.parent, path.name)
        made = build()
        with suppress(OSError):  # a full or read-only disk costs time at the next start, no more
            _write(path, made)
    return made


def _write(path: Path, decoded: Decoded) -> None:
    with replacing(path) as file:
        np.save(file, np.ascontiguousarray(decoded.images), allow_pickle=False)
        meta = json.dumps(decoded.meta).encode()
        file.write(meta)
        end = file.tell()
        file.seek(0)
        checksum = _crc32(file.read, end)
        file.seek(end)
        file.write(_TAIL.pack(len(meta), checksum, _MAGIC))


def _read(path: Path) -> Decoded | None:
    """The content of a cache file; None if there is none or it is damaged."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END) - _TAIL.size
            if end < 0:
                return None
            file.seek(end)
            length, checksum, magic = _TAIL.unpack(file.read(_TAIL.size))
            file.seek(0)
            if magic != _MAGIC or length > end or _crc32(file.read, end) != checksum:
                return None
            file.seek(end - length)
            meta = json.loads(file.read(length))
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return Decoded(images, meta)


def _crc32(read: Callable[[int], bytes], length: int) -> int:
    checksum = 0
    while length > 0:
        block = read(min(_CHUNK, length))
        if not block:
            return -1
        checksum = zlib.crc32(block, checksum)
        length -= len(block)
    return checksum
