"""Comparisons for programs: CSV and JSON, numbers in full."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import fields
from typing import Any

from fewshot_bench.results.comparison import Cell, Comparison, Speed, Table
from fewshot_bench.results.sentences import accuracy_words, heading, sentences
from fewshot_bench.results.training import TRAITS, differing_names, training_of

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def to_csv(comparison: Comparison) -> str:
    """One line per row and setting; the protocol is the first column.

    ``differs`` is why it is another than that of the first table.
    """
    lines = [
        {
            "protocol": heading(table),
            "setting": str(setting),
            "method": row.method,
            "row": row.name,
            "differs": "; ".join(table.differs),
        }
        | _flat(values(cell, table))
        for table in comparison.tables
        for setting, row, cell in table.filled
    ]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, lines[0] if lines else (), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _inert(value) for name, value in line.items()} for line in lines)
    return buffer.getvalue()


def _inert(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula gets a quote in front, as one types it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _flat(cell: dict[str, Any]) -> dict[str, Any]:
    """Without lists and objects: intervals by their ends, pairs with a prefix."""
    paired = dict(cell.pop("paired") or dict.fromkeys(PAIRED))
    training = dict(cell.pop("training") or dict.fromkeys(TRAINING))
    flat: dict[str, Any] = {}
    further = [(f"training_{n.replace('-', '_')}", v) for n, v in training.items()]
    further += [(f"paired_{n}", v) for n, v in paired.items()]
    for name, value in [*cell.items(), *further]:
        if name.endswith("interval"):
            flat[f"{name}_low"], flat[f"{name}_high"] = value or (None, None)
        elif isinstance(value, dict):
            flat[name] = ", ".join(f"{n} {v}" for n, v in value.items())
        elif isinstance(value, list):
            flat[name] = " + ".join(map(str, value))
        else:
            flat[name] = value
    return flat


def to_json(comparison: Comparison) -> str:
    """Tables; in each row a cell per setting, under the setting's name."""
    tables = [_table(table, comparison) for table in comparison.tables]
    whole = {
        "level": comparison.level,
        "target": comparison.target,
        "tables": tables,
        "problems": comparison.problems,
    }
    return json.dumps(whole, indent=2, allow_nan=False) + "\n"


def _table(table: Table, comparison: Comparison) -> dict[str, Any]:
    names = list(map(str, table.settings))
    return {
        "heading": heading(table),
        "protocol": table.protocol,
        "differs": list(table.differs),
        "level": comparison.level_of(table),
        "settings": [
            {"name": name, **setting._asdict()}
            for name, setting in zip(names, table.settings, strict=True)
        ],
        "baselines": {
            name: row and row.name for name, row in zip(names, table.baselines, strict=True)
        },
        "rows": [
            {
                "name": row.name,
                "method": row.method,
                "settings": {
                    name: cell and values(cell, table)
                    for name, cell in zip(names, row.cells, strict=True)
                },
            }
            for row in table.rows
        ],
        "caption": " ".join(accuracy_words(table, comparison)),
        "sentences": sentences(table, comparison),
    }


PAIRED = ("baseline", "seeds", "n", "difference", "half_width", "interval", "p_t",
          "p_wilcoxon", "p_holm", "effect_size", "detectable", "training_differs")  # fmt: skip
TRAINING = (*(trait.name for trait in TRAITS), "chosen_step")


def values(cell: Cell, table: Table) -> dict[str, Any]:
    """Everything of one cell: fractions, ms, s; None where there is nothing."""
    at = table.settings.index(cell.runs[0].setting)
    return {
        "accuracy": cell.accuracy,
        "half_width": cell.half_width,
        "interval": _ends(cell.interval),
        "interval_kind": cell.kind,
        "classes": cell.interval.clusters,
        "varies": cell.interval.varies,
        "mark": cell.mark,
        "transductive": cell.transductive,
        "seen_classes": 0 if cell.overlap is None else cell.overlap["classes"],
        "looks": None if cell.looks is None else cell.looks.configurations,
        "look_seeds": None if cell.looks is None else cell.looks.seeds,
        "episodes": cell.scores.shape[1],
        "paired": _paired(cell),
        "training": _training(cell),
        "training_differs": differing_names([one.runs for one in table.column(at)]),
        **_speed(cell.speed),
        "seeds": [run.record["seed"] for run in cell.runs],
        "runs": [run.record["id"] for run in cell.runs],
    }


def _ends(interval: Any) -> list[float] | None:
    return None if interval.low is None else [interval.low, interval.high]


def _training(cell: Cell) -> dict[str, Any] | None:
    """How its runs were trained; of what differs between the seeds, a list."""
    each = [found for run in cell.runs if (found := training_of(run)) is not None]
    if not each:
        return None
    columns = {name: [one[name] for one in each] for name in TRAINING}
    return {
        name: column[0] if all(value == column[0] for value in column) else column
        for name, column in columns.items()
    }


def _paired(cell: Cell) -> dict[str, Any] | None:
    if cell.paired is None:
        return None
    one, paired = cell.paired, cell.paired.paired
    training = differing_names([cell.runs, one.reference.runs])
    found = (one.baseline.name, one.seeds, paired.n, paired.difference, paired.half_width,
             _ends(paired), paired.p_t, paired.p_wilcoxon, one.p_holm, paired.effect_size,
             one.detectable, training)  # fmt: skip
    return dict(zip(PAIRED, found, strict=True))


def _speed(speed: Speed) -> dict[str, Any]:
    found = {field.name: getattr(speed, field.name) for field in fields(speed)}
    if speed.target_seconds is not None and math.isinf(speed.target_seconds):
        found["target_seconds"] = None  # ``target_reached`` tells it from one that is not known
    return found | {"devices": list(speed.devices)}
