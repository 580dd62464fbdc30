"""Sentences on what makes an accuracy less than it looks like: classes seen, and many looks."""

from __future__ import annotations

from collections.abc import Iterable

from fewshot_bench.data.overlap import TRAINING, VALIDATION
from fewshot_bench.results.comparison import Cell, Table

SEEN = "‡"  # beside an accuracy: some of its classes took part in training
MOST_NAMES = 4  # in one sentence
ROUNDING = 1e-9  # of an accuracy that is read from two files


def listed(names: Iterable[str]) -> str:
    names = list(names)
    if len(names) > MOST_NAMES:
        names = [*names[: MOST_NAMES - 1], f"{len(names) - MOST_NAMES + 1} more"]
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]


def overlap_words(table: Table) -> list[str]:
    """A sentence for each cell whose classes took part in training or validation."""
    words = []
    for setting, row, cell in table.filled:
        overlap = cell.overlap
        if overlap is None:
            continue
        parts = [part for part in (TRAINING, VALIDATION) if overlap[part]]
        names = listed(str(one["class"]) for one in overlap["found"])
        where = f" on {setting}" if len(table.settings) > 1 else ""
        words.append(
            f"{SEEN} {row.name}{where}: {overlap['classes']} of its {overlap['of']} "
            f"{table.protocol['part']} classes took part in {listed(parts)} ({names})."
        )
    return words


def looks_words(table: Table) -> list[str]:
    """How many configurations of each method were tested here, where one was more than once."""
    counts: dict[str, dict[int, list[str]]] = {}
    for setting, row, cell in table.filled:
        if cell.looks is not None:
            of_method = counts.setdefault(row.method, {})
            of_method.setdefault(cell.looks.configurations, []).append(str(setting))
    if not any(count > 1 for of_method in counts.values() for count in of_method):
        return []
    several = [
        f"{method} {count}"
        + (f" ({listed(dict.fromkeys(settings))})" if len(of_method) > 1 else "")
        for method, of_method in counts.items()
        for count, settings in of_method.items()
    ]
    return [
        "Looks at the test split, configurations of one method that were tested, of all runs in "
        f"the folder: {', '.join(several)}. Training seeds are no looks. The best of several is "
        "too high by the choice, unless validation made it."
    ]


def best_of(cell: Cell) -> str:
    """`` (best of 12 looks at the test split)``; empty where there was one."""
    if cell.looks is None or cell.looks.configurations < 2:
        return ""
    which = "best" if cell.accuracy > cell.looks.best - ROUNDING else "one"
    return f" ({which} of {cell.looks.configurations} looks at the test split)"
