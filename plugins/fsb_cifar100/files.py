"""The published files of CIFAR-100 for Python: found, fetched, and read without running them.

They are pickles, which can hold code. Two locks: a file has to have the md5 of the published one,
and the reader makes nothing but plain values and arrays of bytes.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from fewshot_bench.data import download_file, extract_files, file_stamp
from fewshot_bench.errors import DataError

FOLDER = "cifar-100-python"
ARCHIVE = "cifar-100-python.tar.gz"
URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
ARCHIVE_MD5 = "eb9058c3a382ffc7106e4002c42a8d85"
MD5 = {
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}
# What an array of bytes is made with, by the names that it has in pickles of old and new numpy.
_ARRAYS = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    **{
        (f"numpy.{core}.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0]
        for core in ("core", "_core")
    },
}


class _PlainValues(pickle.Unpickler):
    """A reader that refuses a pickle which names anything but what arrays are made with."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return _ARRAYS[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}") from None


def load(root: Path, name: str) -> dict[str, Any]:
    """What one of the files holds.

    Raises:
        DataError: it is not the published file.
    """
    path = root / FOLDER / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read '{path}' ({error.strerror}).") from error
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != MD5[name]:
        raise DataError(
            f"the files in '{root / FOLDER}' are not those of CIFAR-100 (md5 of '{name}'); fetch "
            "them again."
        )
    return plain_values(content, str(path))


def plain_values(content: bytes, name: str) -> dict[str, Any]:
    """The dictionary that a pickle of plain values and arrays holds.

    Arguments:
        content: the pickle.
        name: of its file, for the message.

    Raises:
        DataError: it is no such pickle.
    """
    try:
        found = _PlainValues(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a damaged pickle can raise whatever its values do
        raise DataError(f"'{name}' is no file of plain values ({error}); refused.") from error
    if not isinstance(found, dict):
        raise DataError(f"'{name}' holds no dictionary; refused.")
    return found


def stamp(root: Path) -> list[str]:
    """Changes when a file does.

    Raises:
        DataError: a file is missing.
    """
    found = []
    for name in MD5:
        path = root / FOLDER / name
        try:
            state = file_stamp(path)
        except OSError:
            raise DataError(
                f"no file '{path}'; expected the unpacked CIFAR-100 for Python in '{root}'."
            ) from None
        found.append(f"{name}:{state}")
    return found


def download_to(target: Path) -> None:
    """Fetch the archive and unpack the three files.

    Raises:
        DataError: it cannot be fetched, or is not the published one.
    """
    download_file(URL, target / ARCHIVE, md5=ARCHIVE_MD5)
    extract_files(target / ARCHIVE, target, [f"{FOLDER}/{name}" for name in MD5])
