"""Tables of a run: plain CSV that pandas and polars open directly, written atomically."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fewshot_bench.errors import ConfigError, RecordError
from fewshot_bench.utils.files import replacing

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
    try:
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
        quick = _plain_numbers(text, only)
        if quick is not None:
            return quick
        header, *rows = _cells(text)
        if any(len(row) != len(header) for row in rows):
            raise ValueError("rows of different lengths")
        wanted = [i for i, name in enumerate(header) if only is None or name in only]
        return {header[i]: _numbers([row[i] for row in rows]) for i in wanted}
    except FileNotFoundError as error:
        raise RecordError(f"'{path}' is missing.") from error
    except OSError as error:
        raise RecordError(f"'{path}' cannot be read ({error.strerror}).") from error
    except (ValueError, csv.Error) as error:
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


def _cells(text: str) -> list[list[str]]:
    """The cells of each row. Where nothing is quoted, splitting at commas is the fast way."""
    lines = text.split("\n")
    if '"' in text or "\r" in text or max(map(len, lines)) > csv.field_size_limit():
        return [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    return [line.split(",") for line in lines if line]


def _numbers(cells: list[str]) -> npt.NDArray[np.float64]:
    try:
        return np.array(list(map(float, cells)), dtype=np.float64)
    except ValueError:  # perhaps only for an empty cell
        return np.array([float(cell) if cell else math.nan for cell in cells], dtype=np.float64)
