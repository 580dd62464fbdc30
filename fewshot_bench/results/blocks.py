"""The parts of a table as text: accuracies, differences, times. Exporters only lay them out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fewshot_bench.results.comparison import Cell, Comparison, Difference, Speed, Table
from fewshot_bench.results.sentences import (
    accuracy_words,
    devices,
    difference_words,
    sentences,
    speed_words,
    training_words,
)
from fewshot_bench.results.stats import UNEVEN
from fewshot_bench.results.training import texts


@dataclass(frozen=True)
class Entry:
    """A text of a block.

    Arguments:
        text: what it says; empty where there is nothing.
        mark: ``best``, ``tied`` or empty.
        dagger: whether the result is transductive.
        seen: whether classes that took part in training were evaluated.
    """

    text: str
    mark: str = ""
    dagger: bool = False
    seen: bool = False


@dataclass(frozen=True)
class Block:
    """Lines under the same heads.

    Arguments:
        heads: of the columns; the first names the block and stands over the methods.
        sections: {setting, or empty where the columns are the settings: lines of entries}.
        notes: sentences that explain it.
        findings: sentences that say what it means.
        optional: heads of columns that may be left out where space is short, the first one first;
            None: a block whose columns are of equal rank; empty: narrow ones, none of which may.
    """

    heads: tuple[str, ...]
    sections: dict[str, list[tuple[Entry, ...]]]
    notes: list[str]
    findings: list[str]
    optional: tuple[str, ...] | None = None

    @property
    def lines(self) -> list[tuple[Entry, ...]]:
        """The lines of all sections."""
        return [line for part in self.sections.values() for line in part]


def blocks(table: Table, comparison: Comparison) -> list[Block]:
    """Accuracies; what differs in training; differences from a baseline; times.

    Those of them that there are: trainings where they differ, times where anything was timed.
    """
    found = [_accuracies(table, comparison)]
    if table.training_differs:
        found.append(_trainings(table))
    if table.paired:
        found.append(_differences(table, comparison))
    speed = _speeds(table, comparison)
    return [*found, *([speed] if len(speed.heads) > 1 else [])]


def _accuracies(table: Table, comparison: Comparison) -> Block:
    lines = [
        (Entry(row.title), *(_accuracy(cell) if cell else Entry("") for cell in row.cells))
        for row in table.rows
    ]
    heads = ("accuracy, %", *map(str, table.settings))
    return Block(heads, {"": lines}, accuracy_words(table, comparison), [])


def _accuracy(cell: Cell) -> Entry:
    """``97.53 ± 0.21`` or ``97.53 [96.87, 97.81]``, or why there is no interval."""
    text, interval = f"{100 * cell.accuracy:.2f}", cell.interval
    if interval.half_width is None:
        one_seed = cell.kind == "seeds" and len(cell.runs) == 1
        one_episode = cell.scores.shape[1] == 1
        why = "one seed" if one_seed else "one episode" if one_episode else "no interval"
        text += f" ({why})"
    elif not interval.varies:
        text += " (no variation)"
    elif cell.kind in UNEVEN and interval.low is not None and interval.high is not None:
        text += f" [{100 * interval.low:.2f}, {100 * interval.high:.2f}]"
    else:
        text += f" ± {100 * interval.half_width:.2f}"
    return Entry(text, cell.mark, cell.transductive, cell.overlap is not None)


MOST_JOINED = 3  # settings whose values stand in one cell


def _trainings(table: Table) -> Block:
    """How each row was trained, in what the rows of a column differ."""
    traits = table.training_differs
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for at, setting in enumerate(table.settings):
        rows = [(row, cell) for row in table.rows if (cell := row.cells[at]) is not None]
        columns = [texts(trait, [cell.runs for _, cell in rows]) for trait in traits]
        for (row, _), own in zip(rows, zip(*columns, strict=True), strict=True):
            found[row.title, str(setting)] = own
    names = [row.title for row in table.rows]
    if len(found) == len(names) * len(table.settings) and len(table.settings) <= MOST_JOINED:
        of_row = {name: [own for (row, _), own in found.items() if row == name] for name in names}
        sections = {"": [(name, *_joined(own)) for name, own in of_row.items()]}
    else:
        sections = {
            str(setting): [
                (n, *found[n, str(setting)]) for n in names if (n, str(setting)) in found
            ]
            for setting in table.settings
        }
    heads = ("training", *(trait.label for trait in traits))
    shown = [text for part in sections.values() for line in part for text in line[1:]]
    lines = {name: [tuple(map(Entry, line)) for line in part] for name, part in sections.items()}
    return Block(heads, lines, training_words(table, shown), [], optional=())


def _joined(each: Sequence[tuple[str, ...]]) -> list[str]:
    """A text for each column: that of all settings, or those of the settings one by one."""
    columns = zip(*each, strict=True)
    return ["; ".join(column if len(set(column)) > 1 else column[:1]) for column in columns]


DIFFERENCES = ("difference", "interval", "p", "p Holm", "p Wilcoxon", "d_z")


def _differences(table: Table, comparison: Comparison) -> Block:
    level = f"{100 * comparison.level_of(table):g} %"
    sections: dict[str, list[tuple[str, ...]]] = {}
    for setting, row, _, difference in table.paired:
        line = (row.title, *_difference(difference))
        sections.setdefault(str(setting), []).append(line)
    baselines = {difference.baseline.name for *_, difference in table.paired}
    against = baselines.pop() if len(baselines) == 1 else "the baseline"  # of each column
    heads = (f"against {against}", *DIFFERENCES)
    block = _filled(heads, sections)
    return Block(
        tuple(f"{level} interval" if head == "interval" else head for head in block.heads),
        block.sections,
        difference_words(table, comparison),
        sentences(table, comparison),
        ("p Wilcoxon", "d_z", "p", f"{level} interval"),
    )


def _difference(difference: Difference) -> tuple[str, ...]:
    paired = difference.paired
    interval = "no variation"
    if paired.low is None or paired.high is None:
        interval = "one episode"
    elif paired.varies:
        interval = f"{100 * paired.low:+.2f} to {100 * paired.high:+.2f}"
    return (
        f"{100 * paired.difference:+.2f}",
        interval,
        *map(_p, (paired.p_t, difference.p_holm, paired.p_wilcoxon)),
        "-" if paired.effect_size is None else f"{paired.effect_size:+.2f}",
    )


def _p(p: float | None) -> str:
    if p is None:
        return "-"
    return "< 0.001" if p < 1e-3 else f"{p:.3f}"


def _speeds(table: Table, comparison: Comparison) -> Block:
    letters = devices(table)
    target = f"to {100 * (comparison.target or 0):g} % s"
    heads = ("speed", "step ms", "tasks/s", "learn ms", "classify ms", "train s", target,
             "peak MB", "k weights", "device")  # fmt: skip
    sections: dict[str, list[tuple[str, ...]]] = {}
    for setting, row, cell in table.filled:
        on = "+".join(sorted(letters[name] for name in cell.speed.devices))
        texts = (row.title, *_speed(cell.speed, len(cell.runs)), on if len(letters) > 1 else "-")
        sections.setdefault(str(setting), []).append(texts)
    block = _filled(heads, sections)
    timed = set(block.heads) & set(heads[1:8])  # a count of weights alone is no speed
    return Block(
        block.heads if timed else block.heads[:1],
        block.sections,
        speed_words(table, comparison),
        [],
        ("k weights", "peak MB", "classify ms", "train s", "learn ms", "tasks/s", "step ms"),
    )


def _speed(speed: Speed, runs: int) -> list[str]:
    """Times and memory; the seconds to a target may be ``not reached``, ``only 1 of 3`` (of the
    seeds), or ``303 (2 of 3)`` where not all seeds got there."""
    memory, weights, target = speed.peak_memory_bytes, speed.parameters, "-"
    if speed.target_seconds is not None:
        share = f"{speed.target_reached} of {runs}"
        target = number(speed.target_seconds)
        target += f" ({share})" if speed.target_reached != runs else ""
        if math.isinf(speed.target_seconds):
            target = f"only {share}" if speed.target_reached else "not reached"
    times = (speed.step_ms, speed.tasks_per_s, speed.adapt_ms, speed.predict_ms,
             speed.training_seconds)  # fmt: skip
    sizes = (memory and memory / 1e6, weights and weights / 1e3)
    return [*map(number, times), target, *map(number, sizes)]


def number(value: float | None) -> str:
    """Three significant digits, without an exponent: ``0.735``, ``35.0``, ``1360``."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 99.95 or not value else f"{value:#.3g}"


def _filled(heads: tuple[str, ...], sections: dict[str, list[tuple[str, ...]]]) -> Block:
    """Without the columns that say nothing; a lone section needs no name."""
    lines = [line for part in sections.values() for line in part]
    kept = [i for i in range(len(heads)) if any(line[i] not in ("", "-") for line in lines)]
    return Block(
        tuple(heads[i] for i in kept),
        {
            name if len(sections) > 1 else "": [
                tuple(Entry(line[i]) for i in kept) for line in part
            ]
            for name, part in sections.items()
        },
        [],
        [],
    )
