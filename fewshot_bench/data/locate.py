"""Where the files of a data set are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from fewshot_bench.data.cache import cache_root, expanded
from fewshot_bench.errors import DataError
from fewshot_bench.utils.files import locked, sync_folder

Lookup = Callable[[str], Path | None]
Download = Callable[[Path], None]


def download_folder(name: str, cache_dir: str | Path | None = None) -> Path:
    """Where downloaded files of a data set are kept."""
    return cache_root(cache_dir) / "downloads" / name


def locate(
    name: str,
    data_root: str | Path | None = None,
    registry_lookup: Lookup | None = None,
    download: Download | None = None,
    cache_dir: str | Path | None = None,
) -> Path:
    """The folder with the files of a data set.

    Looked for in this order: ``data_root`` (its subfolder ``name``, or the folder itself),
    ``$FSB_DATA/name``, what ``registry_lookup`` (the hook ``locate_dataset``) says, earlier
    downloads; then, if ``download`` is given, the official download. A ``data_root`` that the user
    named is the only place looked at. The content is not checked here.

    Arguments:
        name: of the data set.
        data_root: the folder named with ``--data-root``.
        registry_lookup: from a name to a folder or None.
        download: fetches all files into a folder, which appears under its final name only when
            all of them are there.
        cache_dir: see :func:`fewshot_bench.data.cache.cache_root`.

    Raises:
        DataError: nowhere; says where it looked and what to type.
    """
    if data_root is not None:
        root = expanded(data_root)
        for folder in (root / name, root):
            if folder.is_dir():
                return folder
        raise DataError(f"--data-root {root}: there is no such folder.")
    looked = []
    if os.environ.get("FSB_DATA"):
        looked.append(expanded(os.environ["FSB_DATA"]) / name)
    hooked = registry_lookup(name) if registry_lookup is not None else None
    if hooked is not None:
        looked.append(hooked)
    target = download_folder(name, cache_dir)
    looked.append(target)
    for folder in looked:
        if folder.is_dir():
            return folder
    problem = ""
    if download is not None:
        try:
            return fetch(download, target)
        except DataError as error:
            problem = f" {error}"
    places = ", ".join(f"'{folder}'" for folder in looked)
    raise DataError(
        f"the files of '{name}' were not found; looked in {places}.{problem} Name their "
        "folder with --data-root FOLDER, or set FSB_DATA to the folder above it."
    )


def fetch(download: Download, target: Path) -> Path:
    """Download into ``target``, which appears only when it is complete.

    Raises:
        DataError: the folder cannot be written, or the download fails.
    """
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_name(target.name + ".lock")):
            if target.is_dir():  # another process fetched it meanwhile
                return target
            part.mkdir(exist_ok=True)
            for left in part.glob("*.part"):  # of a process that was killed
                left.unlink(missing_ok=True)
            download(part)
            os.replace(part, target)
            sync_folder(target.parent)
    except OSError as error:
        raise DataError(f"Cannot make the folder '{target}' ({error.strerror}).") from error
    return target
