"""The parts of a table as text: accuracies, differences, times. Exporters only lay them out."""

import math
from dataclasses import dataclass, replace

from fewshot_bench.results.comparison import Cell, Comparison, Difference, Speed, Table
from fewshot_bench.results.sentences import (
    accuracy_words,
    devices,
    difference_words,
    level_text,
    sentences,
    speed_words,
    training_words,
)
from fewshot_bench.results.stats import UNEVEN
from fewshot_bench.results.training import texts


@dataclass(frozen=True)
class Entry:
    """A text of a block."""

    text: str  # empty where there is nothing
    mark: str = ""  # best, tied or empty
    dagger: bool = False  # whether the result is transductive
    seen: bool = False  # whether classes that took part in training were evaluated


@dataclass(frozen=True)
class Block:
    """Lines under the same heads."""

    heads: tuple[str, ...]  # the first names the block and stands over the methods
    # {setting, or empty where the columns are the settings: lines}
    sections: dict[str, list[tuple[Entry, ...]]]
    notes: list[str]  # sentences that explain it
    findings: list[str]  # sentences that say what it means
    # Heads of columns that may be left out where space is short, the first one first; None: a
    # block whose columns are of equal rank; empty: narrow ones, none of which may.
    optional: tuple[str, ...] | None = None

    @property
    def lines(self) -> list[tuple[Entry, ...]]:
        """The lines of all sections."""
        return [line for part in self.sections.values() for line in part]


def blocks(table: Table, comparison: Comparison) -> list[Block]:
    """Accuracies; what differs in training; differences from a baseline; times, if any."""
    found = [_accuracies(table, comparison)]
    if table.training_differs:
        found.append(_trainings(table))
    if table.paired:
        found.append(_differences(table, comparison))
    speed = _speeds(table, comparison)
    return [*found, speed] if len(speed.heads) > 1 else found


def _accuracies(table: Table, comparison: Comparison) -> Block:
    lines = [
        (Entry(row.title), *(_accuracy(cell) if cell else Entry("") for cell in row.cells))
        for row in table.rows
    ]
    heads = ("accuracy, %", *map(str, table.settings))
    return Block(heads, {"": lines}, accuracy_words(table, comparison), [])


def _accuracy(cell: Cell) -> Entry:
    """``97.53 ± 0.21`` or ``97.53 [96.87, 97.81]``, or why there is no interval."""
    interval = cell.interval
    if interval.half_width is None:
        one_seed = cell.kind == "seeds" and len(cell.runs) == 1
        one_episode = cell.scores.shape[1] == 1
        width = "(one seed)" if one_seed else "(one episode)" if one_episode else "(no interval)"
    elif not interval.varies:
        width = "(no variation)"
    elif cell.kind in UNEVEN and interval.low is not None and interval.high is not None:
        width = f"[{100 * interval.low:.2f}, {100 * interval.high:.2f}]"
    else:
        width = f"± {100 * interval.half_width:.2f}"
    text = f"{100 * cell.accuracy:.2f} {width}"
    return Entry(text, cell.mark, cell.transductive, cell.overlap is not None)


MOST_JOINED = 3  # settings whose values stand in one cell


def _trainings(table: Table) -> Block:
    """How each row was trained, in what the rows of a column differ."""
    traits = table.training_differs
    found: dict[str, dict[str, tuple[str, ...]]] = {}  # {setting: {row: texts}}
    for at, setting in enumerate(table.settings):
        groups = {row.title: cell.runs for row, cell in table.entries(at)}
        columns = [texts(trait, list(groups.values())) for trait in traits]
        found[str(setting)] = dict(zip(groups, zip(*columns, strict=True), strict=True))
    rows, parts = [row.title for row in table.rows], list(found.values())
    if len(parts) <= MOST_JOINED and all(len(part) == len(rows) for part in parts):
        # A text for each column: that of all settings, or those of the settings one by one.
        each = {row: zip(*(part[row] for part in parts), strict=True) for row in rows}
        found = {
            "": {
                row: tuple("; ".join(own if len(set(own)) > 1 else own[:1]) for own in columns)
                for row, columns in each.items()
            }
        }
    heads = ("training", *(trait.label for trait in traits))
    shown = [text for part in found.values() for own in part.values() for text in own]
    sections = {
        setting: [tuple(map(Entry, (row, *own))) for row, own in part.items()]
        for setting, part in found.items()
    }
    return Block(heads, sections, training_words(table, shown), [], optional=())


def _differences(table: Table, comparison: Comparison) -> Block:
    interval = f"{level_text(table, comparison)} interval"
    sections: dict[str, list[tuple[str, ...]]] = {}
    for setting, row, _, difference in table.paired:
        line = (row.title, *_difference(difference))
        sections.setdefault(str(setting), []).append(line)
    baselines = {difference.baseline.name for *_, difference in table.paired}
    against = baselines.pop() if len(baselines) == 1 else "the baseline"  # of each column
    heads = (f"against {against}", "difference", interval, "p", "p Holm", "p Wilcoxon", "d_z")
    notes, findings = difference_words(table, comparison), sentences(table, comparison)
    return _filled(heads, sections, notes, findings, ("p Wilcoxon", "d_z", "p", interval))


def _difference(difference: Difference) -> tuple[str, ...]:
    paired = difference.paired
    interval = "no variation"
    if paired.low is None or paired.high is None:
        interval = "one episode"
    elif paired.varies:
        interval = f"{100 * paired.low:+.2f} to {100 * paired.high:+.2f}"
    effect = "-" if paired.effect_size is None else f"{paired.effect_size:+.2f}"
    p_values = map(_p, (paired.p_t, difference.p_holm, paired.p_wilcoxon))
    return f"{100 * paired.difference:+.2f}", interval, *p_values, effect


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
    optional = ("k weights", "peak MB", "classify ms", "train s", "learn ms", "tasks/s", "step ms")
    block = _filled(heads, sections, speed_words(table, comparison), [], optional)
    timed = set(block.heads) & set(heads[1:8])  # a count of weights alone is no speed
    return block if timed else replace(block, heads=heads[:1])


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


def _filled(
    heads: tuple[str, ...], sections: dict[str, list[tuple[str, ...]]], notes: list[str],
    findings: list[str], optional: tuple[str, ...],
) -> Block:  # fmt: skip
    """Without the columns that say nothing; a lone section needs no name."""
    lines = [line for part in sections.values() for line in part]
    shown = [i for i in range(len(heads)) if any(line[i] not in ("", "-") for line in lines)]
    entries = {
        name if len(sections) > 1 else "": [tuple(Entry(line[i]) for i in shown) for line in part]
        for name, part in sections.items()
    }
    return Block(tuple(heads[i] for i in shown), entries, notes, findings, optional)
