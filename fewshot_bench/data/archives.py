"""Images out of zip archives, without extraction and without trust."""

from __future__ import annotations

import hashlib
import io
import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from fewshot_bench.errors import DataError

# Far beyond what image data sets have, and far below what fills a memory or a disk.
MAX_MEMBERS = 5_000_000
MAX_IMAGE_BYTES = 64 * 2**20
MAX_TOTAL_BYTES = 2**40
MAX_RATIO = 100  # of unpacked to packed, where an image is large: PNG and JPEG are packed already
RATIO_FROM = 2**20  # bytes
MAX_PIXELS = 50_000_000
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")

Pixels = npt.NDArray[np.uint8]

# What zipfile and its decompressors raise for damaged members; RuntimeError: for encrypted ones.
_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, RuntimeError,
)  # fmt: skip


@contextmanager
def open_zip(path: Path, expected: str) -> Iterator[zipfile.ZipFile]:
    """Open an archive for reading.

    Arguments:
        path: the file.
        expected: what should be in it, for the message.

    Raises:
        DataError: the file is missing, unreadable, cut short or no zip archive.
    """
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise DataError(f"no file '{path}'; expected {expected}.") from None
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, struct.error) as error:
        size = path.stat().st_size
        raise DataError(
            f"'{path}' ({size} bytes) is not a complete zip archive ({error}); expected {expected}."
        ) from error
    except OSError as error:
        raise DataError(f"cannot read '{path}' ({error.strerror}); expected {expected}.") from error
    with archive:
        yield archive


def image_members(
    archive: zipfile.ZipFile, suffixes: Sequence[str] = IMAGE_SUFFIXES
) -> list[zipfile.ZipInfo]:
    """The images of an archive, sorted by path. Hidden files and resource forks are left out.

    Raises:
        DataError: a member that leaves the archive's folder, is there twice, is a link, encrypted
            or absurdly large or packed; or an absurd number or sum of members.
    """
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise DataError(f"'{archive.filename}' has {len(infos)} members; at most {MAX_MEMBERS}.")
    total = sum(info.file_size for info in infos)
    if total > MAX_TOTAL_BYTES:
        raise DataError(
            f"'{archive.filename}' unpacks to {total} bytes (at most {MAX_TOTAL_BYTES}); refused."
        )
    chosen: list[zipfile.ZipInfo] = []
    seen: set[str] = set()
    for info in infos:
        if info.filename in seen:
            raise DataError(f"'{archive.filename}': member '{info.filename}' is there twice.")
        seen.add(info.filename)
        path = PurePosixPath(info.filename)
        _refuse(archive, info, path)
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
        if not info.is_dir() and not hidden and path.suffix.lower() in suffixes:
            chosen.append(info)
    return sorted(chosen, key=lambda info: info.filename)


def _refuse(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: PurePosixPath) -> None:
    name = info.filename
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name.split("/")[0]:
        problem = "leaves the archive's folder"
    elif stat.S_ISLNK(info.external_attr >> 16):
        problem = "is a symbolic link"
    elif info.flag_bits & 1:
        problem = "is encrypted"
    elif info.file_size > MAX_IMAGE_BYTES and path.suffix.lower() in IMAGE_SUFFIXES:
        problem = f"unpacks to {info.file_size} bytes (at most {MAX_IMAGE_BYTES})"
    elif info.file_size > max(RATIO_FROM, MAX_RATIO * info.compress_size):
        problem = (
            f"unpacks from {info.compress_size} to {info.file_size} bytes (more than "
            f"{MAX_RATIO} times)"
        )
    else:
        return
    raise DataError(f"'{archive.filename}': member '{name}' {problem}; the archive is refused.")


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The bytes of one member.

    Raises:
        DataError: the member is damaged.
    """
    try:
        return archive.read(info)
    except _UNREADABLE as error:
        raise DataError(
            f"'{archive.filename}' is damaged: member '{info.filename}' cannot be read ({error}); "
            "fetch the file again."
        ) from error


def decode(data: bytes, name: str, mode: str) -> Pixels:
    """An image as bytes [C, H, W]. Mode ``"1"`` gives 0 and 1, ``"L"`` and ``"RGB"`` 0..255.

    Arguments:
        data: a PNG or JPEG file.
        name: where it came from, for the message.
        mode: Pillow's name of the pixel format to convert to.

    Raises:
        DataError: not an image, damaged, or absurdly large.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"'{name}' has {image.width} x {image.height} pixels; refused.")
            picture: Image.Image = image
            if "transparency" in image.info:  # a palette with one cannot become RGB directly
                picture = image.convert("RGBA")
            pixels = np.asarray(picture.convert(mode), dtype=np.uint8)
    except UnidentifiedImageError:
        raise DataError(f"'{name}' is not a PNG or JPEG image.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"'{name}' has over {MAX_PIXELS} pixels; refused.") from None
    except (OSError, SyntaxError, ValueError, zlib.error) as error:
        raise DataError(f"'{name}' is a damaged image ({error}).") from error
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def read_image(path: Path) -> bytes:
    """The bytes of an image file.

    Raises:
        DataError: it cannot be read, or is absurdly large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_IMAGE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read '{path}' ({_why(error)}).") from error
    if len(data) > MAX_IMAGE_BYTES:
        raise DataError(f"'{path}' has more than {MAX_IMAGE_BYTES} bytes; refused.")
    return data


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def file_sha256(path: Path, expected: str) -> str:
    """Hex sha256 of a file's bytes; ``expected`` says in the message what should be there.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise DataError(f"no file '{path}'; expected {expected}.") from None
    except OSError as error:
        raise DataError(f"cannot read '{path}' ({error.strerror}); expected {expected}.") from error
