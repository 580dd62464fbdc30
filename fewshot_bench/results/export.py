"""A comparison as text for papers and programs. Each exporter maps a Comparison to a string."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import Any

from fewshot_bench.results.compare import Comparison, Group, Row
from fewshot_bench.results.labels import labels

COLUMNS = (
    "method",
    "accuracy",
    "half_width",
    "difference",
    "difference_half_width",
    "p_t",
    "transductive",
    "step_ms",
    "step_ms_p95",
    "tasks_per_s",
    "adapt_ms",
    "predict_ms",
    "peak_memory_bytes",
    "training_seconds",
    "parameters",
    "seed",
    "device",
    "run",
)


def cells(row: Row) -> dict[str, Any]:
    """One run's numbers: fractions, ms."""
    record, paired = row.run.record, row.paired
    timing, test = record["timing"], record["test"]
    step, training = timing.get("step_ms") or {}, record["training"] or {}
    return {
        "method": record["method"],
        "accuracy": test["accuracy"],
        "half_width": test["half_width"],
        "difference": paired.difference if paired else None,
        "difference_half_width": paired.half_width if paired else None,
        "p_t": paired.p_t if paired else None,
        "transductive": test["transductive"],
        "step_ms": step.get("median"),
        "step_ms_p95": step.get("p95"),
        "tasks_per_s": timing.get("tasks_per_s"),
        "adapt_ms": timing.get("adapt_ms"),
        "predict_ms": timing.get("predict_ms"),
        "peak_memory_bytes": timing.get("peak_memory_bytes"),
        "training_seconds": training.get("seconds"),
        "parameters": record["parameters"],
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
    extra += f", {task['distractors']} distractor classes" if task["distractors"] else ""
    return (
        f"{record['dataset']}{split}, {task['way']}-way {task['shot']}-shot, {task['query']} "
        f"queries per class{extra}, {test['episodes']} {test['sampling']} episodes"
    )


def caption(group: Group) -> str:
    """What the ± covers and the marks mean, in words."""
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
        name = names(group)[group.rows.index(group.baseline)]
        text += f" Differences are from {name} on the same episodes."
    if len({row.run.record["device"]["name"] for row in group.rows}) > 1:
        text += " Times are of different devices and cannot be compared."
    if any(row.run.record["test"]["transductive"] for row in group.rows):
        text += " † transductive: all queries of a task are seen together; the others: inductive."
    if group.winner is not None:
        text += (
            " Bold: better than every other run here (paired t tests on the same episodes, each "
            "at 5 %); one training each, so other seeds may tell otherwise."
        )
    return text


def names(group: Group) -> list[str]:
    """What the rows are called: the method, and what sets runs of one method apart."""
    return labels([row.run for row in group.rows])


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


def number(value: float | None) -> str:
    """Three significant digits, without an exponent: ``0.735``, ``35.6``, ``1360``."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def times(row: Row) -> tuple[str, str, str, str]:
    """Step, tasks per second, time to learn and to classify a task."""
    values = cells(row)
    shown = ("step_ms", "tasks_per_s", "adapt_ms", "predict_ms")
    return tuple(number(values[n]) for n in shown)  # type: ignore[return-value]


def costs(row: Row) -> tuple[str, str, str]:
    """Seconds of training, peak memory in MB, thousands of parameters."""
    values = cells(row)
    memory, parameters = values["peak_memory_bytes"], values["parameters"]
    return (
        number(values["training_seconds"]),
        number(None if memory is None else memory / 1e6),
        number(parameters / 1e3),
    )


HEADS = (
    "method", "accuracy %", "difference", "step ms", "tasks/s", "learn ms", "classify ms",
    "train s", "peak MB", "k weights",
)  # fmt: skip


def body(group: Group) -> list[tuple[str, ...]]:
    """Rows of a group in the columns of ``HEADS``."""
    return [
        (name, accuracy(row), difference(row), *times(row), *costs(row))
        for name, row in zip(names(group), group.rows, strict=True)
    ]


def filled(group: Group) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Heads and rows without the columns that say nothing for this group."""
    rows = body(group)
    kept = [i for i in range(len(HEADS)) if any(row[i] not in ("", "-") for row in rows)]
    return tuple(HEADS[i] for i in kept), [tuple(row[i] for i in kept) for row in rows]


def markdown(comparison: Comparison) -> str:
    """A table for each protocol, for a README."""
    parts = []
    for group in comparison.groups:
        heads, rows = filled(group)
        lines = [f"**{_plain(heading(group))}**", ""]
        lines += [f"| {' | '.join(heads)} |", "|---" + "|--:" * (len(heads) - 1) + "|"]
        for row, texts in zip(group.rows, rows, strict=True):
            cell = "**{}**" if row is group.winner else "{}"
            shown = [cell.format(_plain(text)) if text else "" for text in texts[:2]]
            lines.append(f"| {' | '.join([*shown, *map(_plain, texts[2:])])} |")
        parts.append("\n".join([*lines, "", *apart(group), caption(group)]))
    return "\n\n".join(parts) + "\n"


def latex(comparison: Comparison) -> str:
    """A booktabs table for each protocol."""
    parts = []
    for group in comparison.groups:
        heads, texts = filled(group)
        lines = []
        for row, cells_ in zip(group.rows, map(list, texts), strict=True):
            bold = r"\textbf{%s}" if row is group.winner else "%s"
            shown = [bold % _tex(cell) for cell in cells_[:2]] + [_tex(c) for c in cells_[2:]]
            lines.append(" & ".join(shown) + r" \\")
        words = " ".join([heading(group) + ".", *apart(group), caption(group)])
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    rf"\caption{{{_tex(words)}}}",
                    r"\begin{tabular}{l" + "r" * (len(heads) - 1) + "}",
                    r"\toprule",
                    " & ".join(_tex(head) for head in heads) + r" \\",
                    r"\midrule",
                    *lines,
                    r"\bottomrule",
                    r"\end{tabular}",
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


def apart(group: Group) -> list[str]:
    """A sentence on why the group stands apart from the first one; none for the first."""
    if not group.differs:
        return []
    return [f"Not comparable with the first table: {'; '.join(group.differs)}."]


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
            "baseline": group.baseline.run.record["id"] if group.baseline else None,
            "winner": group.winner.run.record["id"] if group.winner else None,
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


def _plain(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


_TEX = str.maketrans(
    {character: "\\" + character for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"±": r"$\pm$", "†": r"$\dagger$", "<": "$<$", ">": "$>$", "|": "$|$"}
)


def _tex(text: str) -> str:
    return text.replace("\n", " ").translate(_TEX)
