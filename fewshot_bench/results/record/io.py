"""The record of a run: one JSON file, whose keys are told in docs/record.md."""

from __future__ import annotations

import json
import math
import os
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fewshot_bench.errors import ConfigError, RecordError
from fewshot_bench.results.record.schema import SCHEMA, SCHEMA_VERSION
from fewshot_bench.results.record.shape import SHAPES, is_name, misfit
from fewshot_bench.results.tables import write_atomically
from fewshot_bench.utils.files import Busy, locked

__all__ = [
    "FILE",
    "SCHEMA_VERSION",
    "held",
    "is_held",
    "new_run_folder",
    "read_record",
    "resume_command",
    "write_record",
]

FILE = "record.json"
LOCK = ".lock"  # held by the process that writes the run
TICKS = 16**4  # of a second, in the name of a run
MOST_BYTES, DEEPEST = 32 * 2**20, 32  # of a record; a real one has some ten kilobytes, and 4 levels


def new_run_folder(runs_dir: Path, stem: str) -> Path:
    """Make a folder of its own for a run: ``<stem>-<UTC time>-<fraction of its second>``.

    The fraction counts 65,536ths as four hexadecimal digits, so that names of one stem sort by
    time, also those of one second. A name that is taken leads to the next fraction.

    Raises:
        ConfigError: it cannot be made.
    """
    moment = time.time_ns() * TICKS // 10**9
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        while True:
            second, fraction = divmod(moment, TICKS)
            stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(second))
            folder = runs_dir / f"{stem}-{stamp}-{fraction:04x}"
            try:
                folder.mkdir()
            except FileExistsError:
                moment += 1
                continue
            return folder
    except OSError as error:
        raise ConfigError(
            f"cannot write runs to '{runs_dir}' ({error.strerror}); "
            "give another folder with --runs-dir."
        ) from error


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Be the one process that writes a run.

    Raises:
        RecordError: another one is.
    """
    try:
        with locked(folder / LOCK, wait=0):
            yield
    except Busy as error:
        raise RecordError(f"another process is writing '{folder}'; let it end.") from error


def is_held(folder: Path) -> bool:
    """Whether a process writes this run now."""
    if not (folder / LOCK).exists():
        return False
    try:
        with locked(folder / LOCK, wait=0):
            return False
    except Busy:
        return True


def resume_command(folder: Path) -> str:
    """What to type to go on with a run."""
    return f"fsb resume {shlex.quote(str(folder))}"


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write ``folder/record.json``. A number that is not finite becomes null."""
    text = json.dumps(_finite(record), indent=2, allow_nan=False)
    os.makedirs(folder, exist_ok=True)
    write_atomically(folder / FILE, text + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a run's folder, checked against the schema.

    Raises:
        RecordError: there is none, it is damaged, or a newer fewshot-bench wrote it.
    """
    path = folder / FILE
    if not path.is_file():
        raise RecordError(f"'{folder}' has no {FILE}; is it the folder of a run?")
    record = _json(path)
    if not isinstance(record, dict):
        raise RecordError(f"'{path}' is not a record.")
    version = record.get("schema_version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise RecordError(
            f"'{path}' has schema version {_short(version)}; this fewshot-bench reads up to "
            f"{SCHEMA_VERSION}. Upgrade it to read the record."
        )
    for key, entry in SCHEMA.items():
        if not entry.since_first:
            record.setdefault(key, None)
        if key not in record:
            raise RecordError(f"'{path}' lacks '{key}'.")
        right = isinstance(record[key], entry.types) and not isinstance(record[key], bool)
        if not right:
            raise RecordError(f"'{path}': '{key}' is of the wrong type.")
        for name in entry.members if record[key] is not None else ():
            if name not in record[key]:
                raise RecordError(f"'{path}': '{key}' lacks '{name}'.")
        if key in SHAPES and (problem := misfit(record[key], SHAPES[key], key)) is not None:
            raise RecordError(f"'{path}': {problem}.")
    if not is_name(record["id"]):
        raise RecordError(f"'{path}': 'id' is not the name of a folder.")
    return record


def _json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        RecordError: it cannot be read, is no JSON, or is absurdly large or deep.
    """
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise RecordError(f"'{path}' has {size} bytes; a record has at most {MOST_BYTES}.")
        content = json.loads(path.read_text("utf-8"), parse_constant=_no_number)
    except (OSError, ValueError) as error:
        raise RecordError(f"'{path}' is damaged ({error}).") from error
    except RecursionError:
        content = None
    level, depth = [content], 0
    while level and depth <= DEEPEST and content is not None:
        inside = [part for part in level if isinstance(part, dict | list)]
        level = [v for part in inside for v in (part.values() if type(part) is dict else part)]
        depth += 1
    if depth > DEEPEST or content is None:
        raise RecordError(f"'{path}' is not a record: it is nested deeper than {DEEPEST} levels.")
    return content


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
