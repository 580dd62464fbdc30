"""Tables of a run: plain CSV that pandas and polars open directly, written whole or not at all."""

import csv
import io
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import IO, Any, get_type_hints

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
    """Write a file, text as UTF-8, so that a reader sees the old content or the new, never a part.

    ConfigError: the folder cannot be written to; says what to do.
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

    ``only``: columns to read (default: all); one that the table does not have is left out.
    RecordError: no such file, or not a table of numbers.
    """
    with _reading(path) as file:
        text = file.read()
        if (quick := _plain_numbers(text, only)) is not None:
            return quick
        header, *rows = filter(None, csv.reader(io.StringIO(text, newline="")))
        if any(len(row) != len(header) for row in rows):
            raise ValueError("rows of different lengths")
        return {
            name: np.array([float(row[i] or math.nan) for row in rows], dtype=np.float64)
            for i, name in enumerate(header)
            if only is None or name in only
        }


@contextmanager
def _reading(path: Path) -> Iterator[IO[str]]:
    """Open a table, and turn what can be wrong with it into a :class:`RecordError`."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            yield file
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
    if not lines or not wanted or max(map(len, lines)) > csv.field_size_limit():
        return None
    if set(map(str.count, lines, repeat(","))) != {len(header) - 1}:
        return None
    try:
        numbers = np.loadtxt(lines, delimiter=",", usecols=wanted, ndmin=2, comments=None)
    except ValueError:
        return None
    return {header[i]: column.copy() for i, column in zip(wanted, numbers.T, strict=True)}


CLASSES = "classes.csv"  # what the class ids of episodes.csv stand for
CELLS: dict[str, Callable[[str], Any]] = {
    name: int if kind is int else printable for name, kind in get_type_hints(ClassContent).items()
}
MOST_BYTES = 256 * 2**20  # of that file; a split of 100,000 classes has some 15 million


def write_classes(folder: Path, classes: tuple[ClassContent, ...]) -> None:
    """Write one row for each class of each split; characters that a terminal obeys written out."""
    safe = [replace(c, name=printable(c.name), family=printable(c.family)) for c in classes]
    write_table(folder / CLASSES, {name: [getattr(c, name) for c in safe] for name in CELLS})


def read_classes(folder: Path, split: str = TEST) -> tuple[ClassContent, ...]:
    """The classes of a split (``train``, ``validation`` or ``test``); that of id i is at place i.

    RecordError: the file is missing, damaged or too large.
    """
    path = folder / CLASSES
    with _reading(path) as file:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise RecordError(f"'{path}' has {size} bytes; it has at most {MOST_BYTES}.")
        rows = [row for row in csv.DictReader(file, strict=True) if row["split"] == split]
        found = tuple(
            ClassContent(**{name: read(row[name]) for name, read in CELLS.items()}) for row in rows
        )
        if [c.id for c in found] != list(range(len(found))):
            raise ValueError(f"the ids of the {split} classes are not 0, 1, ...")
    return found
