"""Comparisons for programs: CSV and JSON, numbers in full."""

import csv
import io
import json
import math
from dataclasses import asdict
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
        {"protocol": heading(table), "setting": str(setting), "method": row.method,
         "row": row.name, "differs": "; ".join(table.differs), **_flat(values(cell, table))}
        for table in comparison.tables
        for setting, row, cell in table.filled
    ]  # fmt: skip
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(lines[0] if lines else ())
    writer.writerows(map(_inert, line.values()) for line in lines)
    return buffer.getvalue()


def _inert(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula gets a quote in front, as one types it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _flat(cell: dict[str, Any]) -> dict[str, Any]:
    """Without lists and objects: intervals by their ends, pairs with a prefix."""
    training = cell.pop("training") or dict.fromkeys(TRAINING)
    paired = cell.pop("paired") or dict.fromkeys(PAIRED)
    cell |= {f"training_{name.replace('-', '_')}": value for name, value in training.items()}
    cell |= {f"paired_{name}": value for name, value in paired.items()}
    flat: dict[str, Any] = {}
    for name, value in cell.items():
        if name.endswith("interval"):
            flat[f"{name}_low"], flat[f"{name}_high"] = value or (None, None)
        elif isinstance(value, dict):
            flat[name] = ", ".join(f"{n} {v}" for n, v in value.items())
        else:
            flat[name] = " + ".join(map(str, value)) if isinstance(value, list) else value
    return flat


def to_json(comparison: Comparison) -> str:
    """Tables; in each row a cell per setting, under the setting's name."""
    whole = {
        "level": comparison.level,
        "target": comparison.target,
        "tables": [_table(table, comparison) for table in comparison.tables],
        "problems": comparison.problems,
    }
    return json.dumps(whole, indent=2, allow_nan=False) + "\n"


def _table(table: Table, comparison: Comparison) -> dict[str, Any]:
    names = list(map(str, table.settings))
    rows = [(row, [cell and values(cell, table) for cell in row.cells]) for row in table.rows]
    baselines = [row and row.name for row in table.baselines]
    return {
        "heading": heading(table),
        "protocol": table.protocol,
        "differs": list(table.differs),
        "level": comparison.level_of(table),
        "settings": [{"name": str(setting), **setting._asdict()} for setting in table.settings],
        "baselines": dict(zip(names, baselines, strict=True)),
        "rows": [
            {
                "name": row.name,
                "method": row.method,
                "settings": dict(zip(names, cells, strict=True)),
            }
            for row, cells in rows
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
        "half_width": cell.interval.half_width,
        "interval": _ends(cell.interval),
        "interval_kind": cell.kind,
        "classes": cell.interval.clusters,
        "varies": cell.interval.varies,
        "mark": cell.mark,
        "transductive": cell.transductive,
        "seen_classes": 0 if cell.overlap is None else cell.overlap["classes"],
        "looks": cell.looks and cell.looks.configurations,
        "look_seeds": cell.looks and cell.looks.seeds,
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
    columns = {name: [one[name] for one in each] for name in TRAINING}
    return {n: c[0] if c.count(c[0]) == len(c) else c for n, c in columns.items()} if each else None


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
    found = asdict(speed) | {"devices": list(speed.devices)}
    if speed.target_seconds is not None and math.isinf(speed.target_seconds):
        found["target_seconds"] = None  # ``target_reached`` distinguishes it from an unknown one
    return found
