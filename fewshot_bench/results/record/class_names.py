"""classes.csv: what the class ids of a run's episodes.csv stand for."""

from __future__ import annotations

import csv
import io
from dataclasses import fields
from pathlib import Path

from fewshot_bench.data.images import ClassContent
from fewshot_bench.errors import RecordError
from fewshot_bench.results.tables import write_table
from fewshot_bench.utils.text import printable

FILE = "classes.csv"
MOST_BYTES = 256 * 2**20  # of the file; a split of 100,000 classes has some 15 million
_COLUMNS = tuple(field.name for field in fields(ClassContent))


def write_classes(folder: Path, classes: tuple[ClassContent, ...]) -> None:
    """Write one row for each class of each split; characters that a terminal obeys written out.

    Raises:
        ConfigError: the folder cannot be written.
    """
    rows = [{**vars(c), "name": printable(c.name), "family": printable(c.family)} for c in classes]
    write_table(folder / FILE, {name: [row[name] for row in rows] for name in _COLUMNS})


def read_classes(folder: Path, split: str = "test") -> tuple[ClassContent, ...]:
    """The classes of a split; the class of id i is at place i.

    Arguments:
        folder: of a run.
        split: ``train``, ``validation`` or ``test``.

    Raises:
        RecordError: the file is missing (in runs of older versions), damaged or too large.
    """
    path = folder / FILE
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise RecordError(f"'{path}' has {size} bytes; it has at most {MOST_BYTES}.")
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(io.StringIO(file.read(), newline=""), strict=True))
        found = tuple(_class(row) for row in rows if row["split"] == split)
        if [c.id for c in found] != list(range(len(found))):
            raise ValueError(f"the ids of the {split} classes are not 0, 1, ...")
    except FileNotFoundError as error:
        raise RecordError(f"'{path}' is missing.") from error
    except OSError as error:
        raise RecordError(f"'{path}' cannot be read ({error.strerror}).") from error
    except KeyError as error:
        raise RecordError(f"'{path}' is damaged (no column {error}).") from error
    except (ValueError, TypeError, csv.Error) as error:
        raise RecordError(f"'{path}' is damaged ({error}).") from error
    return found


def _class(row: dict[str, str]) -> ClassContent:
    """A row as it was written.

    Raises:
        KeyError, ValueError, TypeError: a column is missing, is no number, or is cut off.
    """
    number = {name: int(row[name]) for name in ("id", "group", "images")}
    text = {name: printable(row[name]) for name in ("split", "name", "family", "sha256")}
    return ClassContent(
        split=text["split"],
        id=number["id"],
        name=text["name"],
        group=number["group"],
        family=text["family"],
        images=number["images"],
        sha256=text["sha256"],
    )
