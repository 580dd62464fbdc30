"""Files from zip and tar archives, whose content is not trusted."""

import hashlib
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from fewshot_bench.data.decode import IMAGE_SUFFIXES, MAX_IMAGE_BYTES
from fewshot_bench.errors import DataError
from fewshot_bench.utils.files import replacing

# Far more than image data sets have, far less than fills the memory or the disk.
MAX_MEMBERS, MAX_TAR_MEMBERS = 5_000_000, 100_000
MAX_TOTAL_BYTES = 2**40
MAX_TAR_FILE_BYTES = 16 * 2**30
# Unpacked to packed size of members above RATIO_FROM bytes; PNG and JPEG hardly shrink.
MAX_RATIO, RATIO_FROM = 100, 2**20

# What zipfile and its decompressors raise for damaged members; RuntimeError: encrypted ones.
_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, RuntimeError,
)  # fmt: skip


@contextmanager
def open_zip(path: Path, expected: str) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive for reading; ``expected``: what it should hold, for messages.

    Raises:
        DataError: the file is missing, unreadable, truncated or no zip archive.
    """
    with _reading(path, expected):
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, struct.error) as e:
            found = f"'{path}' ({path.stat().st_size} bytes) is not a complete zip archive ({e})"
            raise DataError(f"{found}; expected {expected}.") from e
    with archive:
        yield archive


@contextmanager
def _reading(path: Path, expected: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"no file '{path}'; expected {expected}.") from None
    except OSError as error:
        raise DataError(f"cannot read '{path}' ({error.strerror}); expected {expected}.") from error


def image_members(
    archive: zipfile.ZipFile, suffixes: Sequence[str] = IMAGE_SUFFIXES
) -> list[zipfile.ZipInfo]:
    """The images of an archive, sorted by path, without hidden files and resource forks.

    Raises:
        DataError: a member outside the archive's folder, twice in it, a link, encrypted, or too
            large, packed or unpacked; or too many members or bytes.
    """
    infos, where = archive.infolist(), f"'{archive.filename}'"
    if len(infos) > MAX_MEMBERS:
        raise DataError(f"{where} has {len(infos)} members; at most {MAX_MEMBERS}.")
    total = sum(info.file_size for info in infos)
    if total > MAX_TOTAL_BYTES:
        raise DataError(f"{where} unpacks to {total} bytes (at most {MAX_TOTAL_BYTES}); refused.")
    chosen: list[zipfile.ZipInfo] = []
    seen: set[str] = set()
    for info in infos:
        path = PurePosixPath(info.filename)
        problem = "is in it twice" if info.filename in seen else _problem(info, path)
        if problem:
            member = f"member '{info.filename}' {problem}"
            raise DataError(f"{where}: {member}; the archive is refused.")
        seen.add(info.filename)
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
        if not info.is_dir() and not hidden and path.suffix.lower() in suffixes:
            chosen.append(info)
    return sorted(chosen, key=lambda info: info.filename)


def _problem(info: zipfile.ZipInfo, path: PurePosixPath) -> str:
    """Why a member is refused; empty: it is not."""
    name, size = info.filename, info.file_size
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name.split("/")[0]:
        return "leaves the archive's folder"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "is a symbolic link"
    if info.flag_bits & 1:
        return "is encrypted"
    if size > MAX_IMAGE_BYTES and path.suffix.lower() in IMAGE_SUFFIXES:
        return f"unpacks to {size} bytes (at most {MAX_IMAGE_BYTES})"
    if size > max(RATIO_FROM, MAX_RATIO * info.compress_size):
        return f"unpacks from {info.compress_size} to {size} bytes (more than {MAX_RATIO} times)"
    return ""


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The bytes of one member; DataError if it is damaged."""
    try:
        return archive.read(info)
    except _UNREADABLE as error:
        what = f"'{archive.filename}' is damaged: member '{info.filename}' cannot be read ({error})"
        raise DataError(f"{what}; download the file again.") from error


def extract_files(archive: Path, target: Path, wanted: Collection[str]) -> None:
    """Unpack some files of a tar archive, and no others. Owners and modes are ignored.

    Arguments:
        archive: compressed or not.
        target: the folder for the files.
        wanted: their paths in the archive, with ``/``.

    Raises:
        DataError: the archive cannot be read, has too many members, or lacks one of the files or
            has it as a link or too large.
    """
    left = set(wanted)
    try:
        with tarfile.open(archive) as members:
            for number, member in enumerate(members):
                if number >= MAX_TAR_MEMBERS:
                    raise DataError(
                        f"'{archive}' has more than {MAX_TAR_MEMBERS} members; refused."
                    )
                if member.name not in left:
                    continue
                source = members.extractfile(member) if member.isreg() else None
                if source is None or member.size > MAX_TAR_FILE_BYTES:
                    what = "no plain file" if source is None else f"of {member.size} bytes"
                    found = f"'{archive}': member '{member.name}' is {what}"
                    raise DataError(f"{found}; the archive is refused.")
                path = target / member.name  # one of ``wanted``, so it stays in the folder
                path.parent.mkdir(parents=True, exist_ok=True)
                with source, replacing(path) as file:
                    shutil.copyfileobj(source, file)
                left.discard(member.name)
    except (tarfile.TarError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"'{archive}' is not a complete tar archive ({error}).") from error
    except OSError as error:
        what = f"cannot unpack '{archive}' into '{target}'"
        raise DataError(f"{what} ({error.strerror or error}).") from error
    if left:
        raise DataError(f"'{archive}' has no file '{min(left)}'; it is another archive.")


def file_sha256(path: Path, expected: str) -> str:
    """Hex sha256 of a file, which should be ``expected``; DataError if it cannot be read."""
    with _reading(path, expected), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
