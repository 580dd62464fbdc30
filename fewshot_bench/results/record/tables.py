"""Tables of a run: plain CSV that pandas and polars open directly, written whole or not at all."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fewshot_bench.data.images import ClassContent
from fewshot_bench.errors import ConfigError, RecordError
from fewshot_bench.results.record.model import TEST
from fewshot_bench.utils.files import replacing
from fewshot_bench.utils.text import printable

Column = Sequence[Any] | npt.NDArray[Any]


def write_atomically(
    path: Path, content: str | bytes, hint: str = "give another folder with --runs-dir"
) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Arguments:
        path: of the file.
        content: text is written as UTF-8.
        hint: what to do if that fails.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    try:
        with replacing(path) as file:
            file.write(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise ConfigError(f"cannot write '{path}' ({error.strerror}); {hint}.") from error


def write_table(path: Path, columns: Mapping[str, Column]) -> None:
    """Write columns of equal length. Numbers round-trip exactly; None and NaN are left empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*map(_plain, columns.values()), strict=True))
    write_atomically(path, buffer.getvalue())


def _plain(column: Column) -> list[Any]:
    values = column.tolist() if isinstance(column, np.ndarray) else list(column)
    return [None if isinstance(value, float) and math.isnan(value) else value for value in values]


def read_table(
    path: Path, only: Collection[str] | None = None
) -> dict[str, npt.NDArray[np.float64]]:
    """The columns of a table of numbers; an empty cell is NaN.

    Arguments:
        path: of the table.
        only: columns that are wanted (all); the others are not parsed. One that the table does
            not have is left out.

    Raises:
        RecordError: no such file, or not a table of numbers.
    """
    with _reading(path), path.open(encoding="utf-8", newline="") as file:
        text = file.read()
        quick = _plain_numbers(text, only)
        if quick is not None:
            return quick
        header, *rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
        if any(len(row) != len(header) for row in rows):
            raise ValueError("rows of different lengths")
        wanted = [i for i, name in enumerate(header) if only is None or name in only]
        return {header[i]: _numbers([row[i] for row in rows]) for i in wanted}


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what can be wrong with a table into a :class:`RecordError`."""
    try:
        yield
    except FileNotFoundError as error:
        raise RecordError(f"'{path}' is missing.") from error
    except OSError as error:
        raise RecordError(f"'{path}' cannot be read ({error.strerror}).") from error
    except KeyError as error:
        raise RecordError(f"'{path}' is damaged (no column {error}).") from error
    except (ValueError, TypeError, csv.Error) as error:
        raise RecordError(f"'{path}' is damaged ({error}).") from error


def _plain_numbers(
    text: str, only: Collection[str] | None
) -> dict[str, npt.NDArray[np.float64]] | None:
    """The columns of a table without quotes or empty cells, in half the time; else None."""
    if '"' in text or "\r" in text:
        return None
    first, *lines = filter(None, text.split("\n"))
    header = first.split(",")
    wanted = [i for i, name in enumerate(header) if only is None or name in only]
    commas = len(header) - 1
    longest = max(map(len, lines), default=0)
    if not lines or not wanted or longest > csv.field_size_limit():
        return None
    if set(map(str.count, lines, repeat(","))) != {commas}:
        return None
    try:
        numbers = np.loadtxt(lines, delimiter=",", usecols=wanted, ndmin=2, comments=None)
    except ValueError:
        return None
    return {header[i]: column.copy() for i, column in zip(wanted, numbers.T, strict=True)}


def _numbers(cells: list[str]) -> npt.NDArray[np.float64]:
    try:
        return np.array(list(map(float, cells)), dtype=np.float64)
    except ValueError:  # perhaps only for an empty cell
        return np.array([float(cell) if cell else math.nan for cell in cells], dtype=np.float64)


CLASSES = "classes.csv"  # what the class ids of episodes.csv stand for
MOST_BYTES = 256 * 2**20  # of that file; a split of 100,000 classes has some 15 million


def write_classes(folder: Path, classes: tuple[ClassContent, ...]) -> None:
    """Write one row for each class of each split; characters that a terminal obeys written out.

    Raises:
        ConfigError: the folder cannot be written.
    """
    rows = [{**vars(c), "name": printable(c.name), "family": printable(c.family)} for c in classes]
    names = [field.name for field in fields(ClassContent)]
    write_table(folder / CLASSES, {name: [row[name] for row in rows] for name in names})


def read_classes(folder: Path, split: str = TEST) -> tuple[ClassContent, ...]:
    """The classes of a split; the class of id i is at place i.

    Arguments:
        folder: of a run.
        split: ``train``, ``validation`` or ``test``.

    Raises:
        RecordError: the file is missing (in runs of older versions), damaged or too large.
    """
    path = folder / CLASSES
    with _reading(path):
        if (size := path.stat().st_size) > MOST_BYTES:
            raise RecordError(f"'{path}' has {size} bytes; it has at most {MOST_BYTES}.")
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(io.StringIO(file.read(), newline=""), strict=True))
        found = tuple(_class(row) for row in rows if row["split"] == split)
        if [c.id for c in found] != list(range(len(found))):
            raise ValueError(f"the ids of the {split} classes are not 0, 1, ...")
    return found


def _class(row: dict[str, str]) -> ClassContent:
    """A row as it was written.

    Raises:
        KeyError, ValueError, TypeError: a column is missing, is no number, or is cut off.
    """
    number = {name: int(row[name]) for name in ("id", "group", "images")}
    text = {name: printable(row[name]) for name in ("split", "name", "family", "sha256")}
    return ClassContent(**text, **number)  # type: ignore[arg-type]
