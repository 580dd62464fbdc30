"""A comparison as text for papers and programs. Each exporter maps a Comparison to a string."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import Any

from fewshot_bench.results.compare import Comparison, Group, Row

COLUMNS = (
    "method",
    "accuracy",
    "half_width",
    "difference",
    "difference_half_width",
    "p_t",
    "transductive",
    "step_ms",
    "tasks_per_s",
    "adapt_ms",
    "predict_ms",
    "seed",
    "device",
    "run",
)


def cells(row: Row) -> dict[str, Any]:
    """One run's numbers: fractions, ms."""
    record, paired = row.run.record, row.paired
    timing, test = record["timing"], record["test"]
    return {
        "method": record["method"],
        "accuracy": test["accuracy"],
        "half_width": test["half_width"],
        "difference": paired.difference if paired else None,
        "difference_half_width": paired.half_width if paired else None,
        "p_t": paired.p_t if paired else None,
        "transductive": test["transductive"],
        "step_ms": timing["step_ms"]["median"] if timing["step_ms"] else None,
        "tasks_per_s": timing["tasks_per_s"],
        "adapt_ms": timing["adapt_ms"],
        "predict_ms": timing["predict_ms"],
        "seed": record["seed"],
        "device": record["device"]["name"],
        "run": record["id"],
    }


def heading(group: Group) -> str:
    """``omniglot (official), 5-way 5-shot, 15 queries per class, 600 closed episodes``."""
    record = group.rows[0].run.record
    task, test = record["task"], record["test"]
    split = f" ({record['split']})" if record["split"] else ""
    extra = f", {task['unlabelled']} unlabelled per class" if task["unlabelled"] else ""
    return (
        f"{record['dataset']}{split}, {task['way']}-way {task['shot']}-shot, {task['query']} "
        f"queries per class{extra}, {test['episodes']} {test['sampling']} episodes"
    )


def caption(group: Group) -> str:
    """What the ± covers, in words."""
    first = group.rows[0].run.record["test"]
    covers = (
        "new images of these test classes, as no image is used twice; not new classes"
        if first["sampling"] == "open"
        else "the choice of episodes from these test images; not new images, classes"
    )
    text = (
        f"± is the half width of a {first['level']:.0%} Student interval over episodes; it covers "
        f"{covers} or training seeds."
    )
    if group.baseline is not None:
        name = group.baseline.run.label
        text += f" Differences are from {name} on the same episodes."
    if len({row.run.record["device"]["name"] for row in group.rows}) > 1:
        text += " Times are of different devices and cannot be compared."
    return text


def accuracy(row: Row) -> str:
    """``97.53 ± 0.21``; † marks transductive results."""
    test = row.run.record["test"]
    half = "" if test["half_width"] is None else f" ± {100 * test['half_width']:.2f}"
    return f"{100 * test['accuracy']:.2f}{half}" + (" †" if test["transductive"] else "")


def difference(row: Row) -> str:
    """``+1.20 ± 0.31 (p < 0.001)``; empty for the baseline."""
    paired = row.paired
    if paired is None:
        return ""
    half = "" if paired.half_width is None else f" ± {100 * paired.half_width:.2f}"
    text = f"{100 * paired.difference:+.2f}{half}"
    if not paired.varies or paired.p_t is None:
        return f"{text} (no variation)"
    return f"{text} (p {'< 0.001' if paired.p_t < 1e-3 else f'= {paired.p_t:.3f}'})"


def times(row: Row) -> tuple[str, str, str, str]:
    """Step, tasks per second, time to learn and to classify a task."""
    values = cells(row)
    shown = ("step_ms", "tasks_per_s", "adapt_ms", "predict_ms")
    return tuple("-" if values[n] is None else f"{values[n]:.3g}" for n in shown)  # type: ignore[return-value]


HEADS = ("method", "accuracy %", "difference", "step ms", "tasks/s", "learn ms", "classify ms")


def body(group: Group) -> list[tuple[str, ...]]:
    """Rows of a group in the columns of ``HEADS``."""
    return [(row.run.label, accuracy(row), difference(row), *times(row)) for row in group.rows]


def markdown(comparison: Comparison) -> str:
    """A table for each protocol, for a README."""
    parts = []
    for group in comparison.groups:
        lines = [f"**{heading(group)}**", "", f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|"]
        lines += [f"| {' | '.join(_plain(c) for c in row)} |" for row in body(group)]
        parts.append("\n".join([*lines, "", caption(group) + _dagger(group)]))
    return "\n\n".join(parts) + "\n"


def latex(comparison: Comparison) -> str:
    """A booktabs table for each protocol."""
    parts = []
    for group in comparison.groups:
        rows = [" & ".join(_tex(cell) for cell in row) + r" \\" for row in body(group)]
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    rf"\caption{{{_tex(heading(group))}. {_tex(caption(group) + _dagger(group))}}}",
                    r"\begin{tabular}{l" + "r" * (len(HEADS) - 1) + "}",
                    r"\toprule",
                    " & ".join(_tex(head) for head in HEADS) + r" \\",
                    r"\midrule",
                    *rows,
                    r"\bottomrule",
                    r"\end{tabular}",
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


def to_csv(comparison: Comparison) -> str:
    """One line per run; the protocol is the first column."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, ("protocol", *COLUMNS), lineterminator="\n")
    writer.writeheader()
    for group in comparison.groups:
        for row in group.rows:
            writer.writerow({"protocol": heading(group), **cells(row)})
    return buffer.getvalue()


def to_json(comparison: Comparison) -> str:
    """Groups with their rows; numbers in full."""
    groups = [
        {
            "protocol": heading(group),
            "differs": group.differs,
            "rows": [
                {
                    **cells(row),
                    "interval": row.run.record["test"]["interval"],
                    "paired": None if row.paired is None else asdict(row.paired),
                }
                for row in group.rows
            ],
        }
        for group in comparison.groups
    ]
    return json.dumps({"groups": groups, "problems": comparison.problems}, indent=2) + "\n"


def _dagger(group: Group) -> str:
    marked = any(row.run.record["test"]["transductive"] for row in group.rows)
    return " † transductive: all queries of a task are seen together." if marked else ""


def _plain(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def _tex(text: str) -> str:
    text = text.replace("\\", "/")
    for character in "&%$#_{}":
        text = text.replace(character, "\\" + character)
    return text.replace("±", r"$\pm$").replace("†", r"$\dagger$").replace("<", "$<$")
