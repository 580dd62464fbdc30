"""The files of a data set: where they are, and downloads that are complete or not there at all."""

import contextlib
import hashlib
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from fewshot_bench.data.cache import cache_root, expand_home
from fewshot_bench.errors import DataError
from fewshot_bench.utils.files import locked, sync_folder

Lookup = Callable[[str], Path | None]
Download = Callable[[Path], None]
_BLOCK = 1 << 18


def downloads_folder(name: str, cache_dir: str | Path | None = None) -> Path:
    return cache_root(cache_dir) / "downloads" / name


def locate(
    name: str, data_root: str | Path | None = None, registry_lookup: Lookup | None = None,
    download: Download | None = None, cache_dir: str | Path | None = None,
) -> Path:  # fmt: skip
    """The folder with the files of a data set, whose content is not checked here.

    With ``data_root``: its subfolder ``name``, or else the folder itself. Otherwise the first that
    exists of ``$FSB_DATA/name``, the result of ``registry_lookup`` (the hook ``locate_dataset``)
    and earlier downloads; then the official ``download`` into a folder, if given; else DataError.
    """
    if data_root is not None:
        root = expand_home(data_root)
        for folder in (root / name, root):
            if folder.is_dir():
                return folder
        raise DataError(f"--data-root {root}: no such folder.")
    target, hooked = downloads_folder(name, cache_dir), registry_lookup and registry_lookup(name)
    places = [hooked, target] if hooked is not None else [target]
    if named := os.environ.get("FSB_DATA"):
        places.insert(0, expand_home(named) / name)
    for folder in places:
        if folder.is_dir():
            return folder
    problem = ""
    if download is not None:
        try:
            return fetch_folder(download, target)
        except DataError as error:
            problem = f" {error}"
    tried = ", ".join(f"'{folder}'" for folder in places)
    advice = "Name their folder with --data-root FOLDER, or set FSB_DATA to its parent folder."
    raise DataError(f"the files of '{name}' were not found in {tried}.{problem} {advice}")


def fetch_folder(download: Download, target: Path) -> Path:
    """Download into ``target``, which appears when it is complete; DataError if that fails."""
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_name(target.name + ".lock")):
            if target.is_dir():  # another process downloaded it meanwhile
                return target
            part.mkdir(exist_ok=True)
            for left in part.glob("*.part"):  # of a killed process
                left.unlink(missing_ok=True)
            download(part)
            os.replace(part, target)
            sync_folder(target.parent)
    except OSError as error:
        raise DataError(f"cannot write the folder '{target}' ({error.strerror}).") from error
    return target


def download_file(
    url: str, path: Path, *, md5: str | None = None, sha256: str | None = None, tries: int = 3,
    wait: float = 1.0, timeout: float = 30.0,
) -> None:  # fmt: skip
    """Download ``url`` to ``path``, unless it holds a file with the right checksum.

    Arguments:
        md5, sha256: expected digests, hex; those that are given are checked.
        tries: how often, if the network fails or the content is wrong.
        wait: seconds before the second try; doubled for each further one.
        timeout: seconds to wait for an answer.

    Raises:
        DataError: no try gave the expected content.
    """
    expected = {name: value for name, value in (("md5", md5), ("sha256", sha256)) if value}
    if expected and path.is_file() and not _mismatch(path, expected):
        return
    part = path.with_name(path.name + f".{os.getpid()}.part")
    problem = ""
    try:
        for attempt in range(tries):
            if attempt:
                time.sleep(wait * 2 ** (attempt - 1))
            if not (problem := _try(url, part, expected, timeout)):
                with part.open("rb") as file:
                    os.fsync(file.fileno())
                os.replace(part, path)
                sync_folder(path.parent)
                return
    except OSError as error:
        problem = f"cannot write '{path}' ({error.strerror})"
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    raise DataError(f"Download of {url} failed after {tries} tries: {problem}.")


def _try(url: str, part: Path, expected: dict[str, str], timeout: float) -> str:
    """Download once; returns the problem, or an empty string."""
    request = urllib.request.Request(url, headers={"User-Agent": "fewshot-bench"})
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("wb") as file:
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                length = answer.headers.get("Content-Length")
                while block := answer.read(_BLOCK):
                    file.write(block)
        except urllib.error.HTTPError as error:
            error.close()
            return f"the server answered {error.code} {error.reason}"
        except (urllib.error.URLError, OSError, ValueError) as error:
            return f"no connection ({getattr(error, 'reason', error)})"
    size = part.stat().st_size
    if length is not None and size != int(length):
        return f"it broke off after {size} of {length} bytes"
    return _mismatch(part, expected)


def _mismatch(path: Path, expected: dict[str, str]) -> str:
    for name, value in expected.items():
        with path.open("rb") as file:
            found = hashlib.file_digest(file, name).hexdigest()
        if found != value:
            return f"{name} of the file is {found}, expected {value}"
    return ""
