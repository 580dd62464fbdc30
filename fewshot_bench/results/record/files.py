"""Folders of runs and their record.json: written whole, locked, migrated and checked when read."""

import json
import os
import re
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fewshot_bench.config.schema import RunConfig
from fewshot_bench.errors import ConfigError, RecordError
from fewshot_bench.results.record.model import (
    SCHEMA_VERSION,
    TEST,
    VALIDATION,
    Record,
    Result,
    Settings,
    TrainingSettings,
)
from fewshot_bench.results.record.tables import write_atomically
from fewshot_bench.utils.files import Busy, locked

RECORD = "record.json"
LOCK = ".lock"  # held by the process that writes the run
TICKS = 16**4  # of a second, in the name of a run
MOST_BYTES, DEEPEST = 32 * 2**20, 32  # of a record; a real one has some ten kilobytes, and 4 levels


def folder_of(path: str | Path) -> Path:
    """The folder of a run, of which the path of its record may be given as well."""
    path = Path(path)
    return path.parent if path.name == RECORD else path


def new_run_folder(runs_dir: Path, stem: str) -> Path:
    """Make a folder of its own for a run: ``<stem>-<UTC time>-<fraction of its second>``.

    The fraction counts 65,536ths as four hexadecimal digits, so that names of one stem sort by
    time. A name that is taken leads to the next fraction. ConfigError: it cannot be made.
    """
    moment = time.time_ns() * TICKS // 10**9
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        while True:
            second, fraction = divmod(moment, TICKS)
            stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(second))
            folder = runs_dir / f"{stem}-{stamp}-{fraction:04x}"
            with suppress(FileExistsError):
                folder.mkdir()
                return folder
            moment += 1
    except OSError as error:
        raise ConfigError(
            f"cannot write runs to '{runs_dir}' ({error.strerror}); "
            "give another folder with --runs-dir."
        ) from error


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Be the one process that writes a run; RecordError: another one is."""
    try:
        with locked(folder / LOCK, wait=0):
            yield
    except Busy as error:
        raise RecordError(f"another process is writing '{folder}'; wait until it ends.") from error


def is_locked(folder: Path) -> bool:
    """Whether a process is writing this run."""
    if not (folder / LOCK).exists():
        return False
    try:
        with locked(folder / LOCK, wait=0):
            return False
    except Busy:
        return True


def resume_command(folder: Path) -> str:
    """The command that resumes a run."""
    return f"fsb resume {shlex.quote(str(folder))}"


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write ``folder/record.json``. A number that is not finite becomes null.

    Raises:
        RecordError: a value has not the type that :class:`.model.Record` declares.
        ConfigError: the folder cannot be written.
    """
    path = folder / RECORD
    checked = _checked(path, msgspec.json.decode(msgspec.json.encode(record, enc_hook=_to_json)))
    os.makedirs(folder, exist_ok=True)
    write_atomically(path, msgspec.json.format(msgspec.json.encode(checked)) + b"\n")


def _to_json(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, str):  # a path of a setting
        return str(value)
    raise TypeError(f"a record cannot hold {type(value).__name__}")


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a run's folder, migrated to this version and checked; every key is there.

    Raises:
        RecordError: there is none, it is damaged, or a newer fewshot-bench wrote it.
    """
    path = folder / RECORD
    if not path.is_file():
        raise RecordError(f"'{folder}' has no {RECORD}; is it the folder of a run?")
    return _checked(path, _migrated(path, _json(path))).to_dict()


def with_result(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with its result under ``test``, whichever split it is of.

    In a file it is elsewhere, so that a reader that does not know ``part`` cannot confuse them.
    """
    record, validation = dict(record), record["validation"] or {}
    if record["part"] == VALIDATION and record[TEST] is None and "episodes" in validation:
        record[TEST] = {name: validation.get(name) for name in Result.__struct_fields__}
    return record


def _json(path: Path) -> dict[str, Any]:
    """What a JSON file holds; it may be no record, unreadable, or absurdly large or deep."""
    too_deep = RecordError(f"'{path}' is not a record: it is nested deeper than {DEEPEST} levels.")
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise RecordError(f"'{path}' has {size} bytes; a record has at most {MOST_BYTES}.")
        content = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise RecordError(f"'{path}' cannot be read ({error.strerror}).") from error
    except ValueError as error:
        what = re.sub(r" \(byte \d+\)| - at `.*`", "", str(error))
        raise RecordError(f"'{path}' is damaged ({what}).") from error
    except RecursionError:
        raise too_deep from None
    if not isinstance(content, dict):
        raise RecordError(f"'{path}' is not a record.")
    level: list[Any] = [content]
    for _ in range(DEEPEST):
        inside = [list(part.values()) if isinstance(part, dict) else part for part in level]
        level = [value for part in inside if isinstance(part, list) for value in part]
    if level:
        raise too_deep
    return content


def _migrated(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    """A record of this version from one of any version before."""
    version = record.get("schema_version")
    if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
        raise RecordError(
            f"'{path}' has schema version {_short(version)}; this fewshot-bench reads 1 to "
            f"{SCHEMA_VERSION}. Upgrade it to read the record."
        )
    for older in range(version, SCHEMA_VERSION):
        record = MIGRATIONS[older](record)
    return record | {"schema_version": SCHEMA_VERSION}


AMERICAN = {"labelled": "labeled", "licence": "license", "optimiser": "optimizer"}


def _to_2(record: dict[str, Any]) -> dict[str, Any]:
    """Keys in American spelling; ``part`` is never null."""

    def spelled(value: Any) -> Any:
        if isinstance(value, list):
            return list(map(spelled, value))
        if not isinstance(value, dict):
            return value
        return {
            re.sub("|".join(AMERICAN), lambda found: AMERICAN[found[0]], key): spelled(inner)
            for key, inner in value.items()
        }

    return {**spelled(record), "part": record.get("part") or TEST}


MIGRATIONS = {1: _to_2}  # {version: function from the dictionary of it to that of the next one}


def _checked(path: Path, record: Any) -> Record:
    """The record as its struct; raises where a value is missing or has another type."""
    where: tuple[str, ...] = ()
    try:
        found = msgspec.convert(record, Record)
        where = ("config",)
        if missing := [one.name for one in fields(RunConfig) if one.name not in found.config]:
            raise msgspec.ValidationError(f"Object missing required field `{missing[0]}`")
        msgspec.convert(found.config, Settings)
        if found.training_summary is not None:
            where = ("training_summary", "settings")
            msgspec.convert(found.training_summary.settings, TrainingSettings)
        return found
    except msgspec.ValidationError as error:
        raise RecordError(f"'{path}': {_problem(str(error), record, where)}.") from error


WORDS = {"float": "a number", "int": "an integer", "str": "text", "object": "an object",
         "array": "a list", "bool": "true or false"}  # fmt: skip


def _problem(error: str, record: Any, where: tuple[str, ...]) -> str:
    """``test.accuracy: expected a number, got "high"`` from what msgspec raises."""

    def in_words(types: re.Match[str]) -> str:
        return " or ".join(WORDS.get(name, name) for name in types[1].split(" | "))

    text, _, at = (error[0].lower() + error[1:]).partition(" - at `$")
    keys = [*where, *re.findall(r"[^.\[\]`]+", at.replace("[...]", ".*"))]
    place = f"{'.'.join(keys)}: " if keys else ""
    if missing := re.search(r"missing required field `(.*)`", text):
        return f"{place}'{missing[1]}' is missing"
    text, _, got = text.partition(", got ")
    if "*" not in keys:  # in a free mapping msgspec does not name the key
        for key in keys:
            record = record[int(key)] if isinstance(record, list) else record[key]
        got = _short(json.dumps(record))
    text = re.sub(r"`str` matching regex .*", "the name of a folder", text)
    return place + re.sub(r"`(.*?)`", in_words, f"{text}, got {got}" if got else text)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
