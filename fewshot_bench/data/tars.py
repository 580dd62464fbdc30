"""Known files out of a tar archive, without trust in what else it holds."""

from __future__ import annotations

import shutil
import tarfile
import zlib
from collections.abc import Collection
from lzma import LZMAError
from pathlib import Path

from fewshot_bench.errors import DataError
from fewshot_bench.utils.files import replacing

MAX_MEMBERS = 100_000
MAX_BYTES = 16 * 2**30


def extract_files(archive: Path, target: Path, wanted: Collection[str]) -> None:
    """Unpack some files of an archive, and no other.

    Arguments:
        archive: a tar file, packed or not.
        target: the folder that they are put into; made if need be.
        wanted: their paths in the archive, with ``/``.

    Raises:
        DataError: the archive cannot be read, lacks one of the files, or has it as a link or
            absurdly large; or it has an absurd number of members.
    """
    left = set(wanted)
    try:
        with tarfile.open(archive) as members:
            for number, member in enumerate(members):
                if number >= MAX_MEMBERS:
                    raise DataError(f"'{archive}' has more than {MAX_MEMBERS} members; refused.")
                if member.name not in left:
                    continue
                if not member.isreg() or member.size > MAX_BYTES:
                    what = f"of {member.size} bytes" if member.isreg() else "no plain file"
                    raise DataError(
                        f"'{archive}': member '{member.name}' is {what}; the archive is refused."
                    )
                _copy(members, member, target)
                left.discard(member.name)
    except (tarfile.TarError, EOFError, ValueError, zlib.error, LZMAError) as error:
        raise DataError(f"'{archive}' is not a complete tar archive ({error}).") from error
    except OSError as error:
        why = error.strerror or str(error)
        raise DataError(f"cannot unpack '{archive}' into '{target}' ({why}).") from error
    if left:
        raise DataError(f"'{archive}' has no file '{sorted(left)[0]}'; it is another archive.")


def _copy(members: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    """One file, under its final name when it is whole. Owner and mode of the archive do not count.

    ``member`` is one of those asked for, so its path is the caller's and leads nowhere else.
    """
    path = target / member.name
    path.parent.mkdir(parents=True, exist_ok=True)
    source = members.extractfile(member)
    assert source is not None, "a plain file"
    with source, replacing(path) as file:
        shutil.copyfileobj(source, file)
