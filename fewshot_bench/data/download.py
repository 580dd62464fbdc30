"""Fetching a file: several tries, a checksum, and no half-written file under its final name."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

from fewshot_bench.errors import DataError
from fewshot_bench.utils.files import sync_folder

_BLOCK = 1 << 18
_AGENT = "fewshot-bench"


def download(
    url: str,
    path: Path,
    *,
    md5: str | None = None,
    sha256: str | None = None,
    tries: int = 3,
    wait: float = 1.0,
    timeout: float = 30.0,
) -> None:
    """Fetch ``url`` into ``path``, unless a file with the right checksum is there already.

    Arguments:
        md5, sha256: hex; whichever is given is checked.
        tries: how often, when the network fails or the content is wrong.
        wait: seconds before the second try; doubled for each further one.
        timeout: seconds without an answer.

    Raises:
        DataError: no try gave the expected content.
    """
    wanted = {name: value for name, value in (("md5", md5), ("sha256", sha256)) if value}
    if wanted and path.is_file() and _problem(path, wanted) is None:
        return
    part = path.with_name(path.name + f".{os.getpid()}.part")
    problem = ""
    try:
        for attempt in range(tries):
            if attempt:
                time.sleep(wait * 2 ** (attempt - 1))
            problem = _try(url, part, wanted, timeout)
            if not problem:
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


def _try(url: str, part: Path, wanted: dict[str, str], timeout: float) -> str:
    """Fetch once; what went wrong, or an empty string."""
    request = urllib.request.Request(url, headers={"User-Agent": _AGENT})
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
    return _problem(part, wanted) or ""


def _problem(path: Path, wanted: dict[str, str]) -> str | None:
    for name, value in wanted.items():
        with path.open("rb") as file:
            found = hashlib.file_digest(file, name).hexdigest()
        if found != value:
            return f"{name} of the file is {found}, expected {value}"
    return None
