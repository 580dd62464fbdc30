"""``--equal``: rows whose trainings have to be the same in what is named, or there is no table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fewshot_bench.errors import ConfigError, UnknownName
from fewshot_bench.results.comparison import Comparison
from fewshot_bench.results.runs import Run
from fewshot_bench.results.training import differing, texts, training_of
from fewshot_bench.results.traits import BY_NAME, TRAITS, Trait

ALL = "all"
ALSO = {"tasks": "task-batch"}  # a second word for a trait


def equal_names(asked: Any) -> tuple[str, ...]:
    """The traits that are named: ``"way,steps"``, ``["way", "steps"]`` or ``"all"``.

    Raises:
        UnknownName: one is no trait of a training.
        ConfigError: no names, or no text.
    """
    several = [asked] if isinstance(asked, str) else asked or ()
    if not isinstance(several, list | tuple) or not all(isinstance(one, str) for one in several):
        raise ConfigError(f'--equal {asked}: give names, as in "way,steps".')
    words = [word for one in several for word in one.split(",")]
    names = [ALSO.get(word.strip(), word.strip()).replace("_", "-") for word in words]
    if (asked and not any(names)) or asked == "":
        raise ConfigError(f"--equal: give names, as in --equal way,steps, or {ALL}.")
    for name in names:
        if name not in (ALL, *BY_NAME):
            known = (*BY_NAME, *ALSO, ALL)
            raise UnknownName("training setting", name, known, "See docs/compare.md for each.")
    if ALL in names:
        return tuple(BY_NAME)
    return tuple(name for name in BY_NAME if name in names)


def refuse_unequal(comparison: Comparison, names: Sequence[str]) -> None:
    """Hold the rows of every column of every table against each other.

    Raises:
        ConfigError: their trainings differ in one of these; says the first, with the values.
    """
    for table in comparison.tables:
        for at, setting in enumerate(table.settings):
            rows = [(row.name, cell.runs) for row in table.rows if (cell := row.cells[at])]
            why = unequal(rows, names)
            if why is not None:
                raise ConfigError(
                    f"--equal {why[0]}: on {setting} {why[1]}. Train them alike with 'fsb compare "
                    f"METHOD ... --equal {why[0]}', name fewer runs, or leave --equal out for a "
                    "table that tells what differs."
                )


def unequal(
    rows: Sequence[tuple[str, Sequence[Run]]], names: Sequence[str]
) -> tuple[str, str] | None:
    """The first of these traits in which rows differ, and how; None where they are equal.

    Rows that train nothing are only held to what they have: backbone, parameters, first weights.
    Mini-batches have no way, shot or query.
    """
    groups = [runs for _, runs in rows]
    for trait in (trait for trait in TRAITS if trait.name in names):
        unknown = [name for name, runs in rows if any(_unrecorded(trait, run) for run in runs)]
        if unknown and len(rows) > 1:
            return trait.name, f"it is not recorded of {unknown[0]}, whose record is older"
        if trait in differing(groups):
            own = zip((name for name, _ in rows), texts(trait, groups), strict=True)
            told = ", ".join(f"{name} {text}" for name, text in own if text != "-")
            return trait.name, f"the rows' trainings differ in {trait.head}: {told}"
    return None


def _unrecorded(trait: Trait, run: Run) -> bool:
    """Whether a run was trained, and its record is too old to tell of a trait."""
    if run.record["training"] is None or run.record.get("training_summary"):
        return False
    found = training_of(run)
    return found is not None and found[trait.name] is None
