"""Runs side by side: a row per method, a column per setting, paired on the same episodes.

Exporters get a :class:`Comparison`, which :func:`compare` makes of runs. It has tables; a table has
settings (its columns) and rows (methods); a row has one :class:`Cell` per setting, or None where
the method has no run. Scores are fractions, times ms or seconds as their names say.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from statistics import fmean
from typing import Any

import numpy as np

from fewshot_bench.errors import ConfigError, RecordError, UnknownName
from fewshot_bench.results import stats
from fewshot_bench.results.layout import Layout, lay_out, seeds_of, settings
from fewshot_bench.results.record import RECORD, TEST
from fewshot_bench.results.runs import Array, Run, Setting, age, load_runs
from fewshot_bench.results.stats import INTERVALS, Interval, Paired
from fewshot_bench.results.training import TRAITS, Trait, differing, unequal

SIGNIFICANT = 0.05  # of a p value after Holm's correction
POWER = 0.8  # of the difference that a comparison would have found
# What may be chosen, too, and so makes an evaluation of one test split another one.
CHOSEN = ("episodes", "level", "episode_seed")


@dataclass(frozen=True)
class Speed:
    """Medians over the runs; None where none of them was timed."""

    step_ms: float | None  # of a training step
    step_ms_p95: float | None
    tasks_per_s: float | None  # of training
    adapt_ms: float | None  # to learn a test task
    predict_ms: float | None  # to classify its queries
    training_seconds: float | None  # of the whole training, validation included
    peak_memory_bytes: float | None  # on a GPU what was allocated, on a CPU the process
    parameters: float | None  # how many numbers the method has
    # Of training steps until validation first reached the target; infinite if fewer than half of
    # the runs got there; None if nothing was asked for, trained or kept.
    target_seconds: float | None
    target_reached: int | None  # how many of the runs got there
    devices: tuple[str, ...]  # their names, most often one


# Where a record has the numbers of a Speed.
PLACES: dict[str, tuple[str, ...]] = {
    "step_ms": ("timing", "step_ms", "median"),
    "step_ms_p95": ("timing", "step_ms", "p95"),
    "tasks_per_s": ("timing", "tasks_per_s"),
    "adapt_ms": ("timing", "adapt_ms"),
    "predict_ms": ("timing", "predict_ms"),
    "training_seconds": ("training", "seconds"),
    "peak_memory_bytes": ("timing", "peak_memory_bytes"),
    "parameters": ("parameters",),
}


@dataclass(frozen=True)
class Looks:
    """Test evaluations of one method on one protocol, of all runs in the same folders."""

    configurations: int  # how many differ in a setting, or in the seed of their episodes
    seeds: int  # the most of a configuration; they are no looks, because all of them are reported
    evaluations: int  # of all configurations and seeds; the same one again counts once
    best: float  # the highest accuracy of a configuration, the mean over its seeds


@dataclass
class Difference:
    """A cell against the baseline's cell of its column, on the same episodes."""

    paired: Paired
    seeds: int  # of each, so that it is about the methods; 0: one has one, it is about trainings
    baseline: Row
    reference: Cell  # of that row
    p_holm: float | None = None  # of the t test, over the table's differences; None: no variation
    detectable: float | None = None  # would have been found with POWER, where nothing was found

    @property
    def found(self) -> bool:
        """Whether the difference survives the correction."""
        return self.p_holm is not None and self.p_holm < SIGNIFICANT


@dataclass
class Cell:
    """One method in one setting.

    ``mark``: ``best`` if it is better than every other cell of its column after Holm's correction
    over the column's pairs; ``tied`` if it has the highest accuracy, or is not significantly
    different from the cell that has; else empty.
    """

    runs: tuple[Run, ...]  # one per training seed, the lowest first
    scores: Array = field(repr=False)  # accuracy of each seed and episode [seeds, episodes]
    interval: Interval  # of the accuracy
    kind: str  # of the interval, one of INTERVALS
    speed: Speed
    paired: Difference | None = None  # None: the baseline itself, or there is none
    mark: str = ""
    looks: Looks | None = None  # of the method on this protocol; None on the validation split

    @property
    def overlap(self) -> dict[str, Any] | None:
        """The classes that took part in making the weights, as the record has it; None: none."""
        found = [run.record["overlap"] for run in self.runs]
        return next((one for one in found if one and one["classes"]), None)

    @property
    def accuracy(self) -> float:
        """Mean over episodes and seeds."""
        return self.interval.mean

    @property
    def transductive(self) -> bool:
        return bool(self.runs[0].record["test"]["transductive"])

    @property
    def trained(self) -> bool:
        return self.runs[0].record["training"] is not None


@dataclass
class Row:
    """A method with its settings."""

    name: str  # distinguishes it from the other rows of its table
    cells: list[Cell | None]  # one per setting of the table; None where the method has no run

    @property
    def title(self) -> str:
        """The name, with the number of training seeds where there are several."""
        return ", ".join(filter(None, (self.name, seeds_of(self.runs))))

    @property
    def entry(self) -> str:
        """What a grid calls it; else the method's name."""
        return self.runs[0].name

    @property
    def method(self) -> str:
        return str(self.runs[0].record["method"])

    @property
    def names(self) -> set[str]:
        """What it can be named by as the baseline."""
        return {self.name, self.entry, self.method, *(run.record["id"] for run in self.runs)}

    @property
    def runs(self) -> list[Run]:
        return [run for cell in self.cells if cell is not None for run in cell.runs]


@dataclass
class Table:
    """Methods and settings whose protocols agree in everything else."""

    protocol: dict[str, Any]  # what all runs share: data set, split, query count, episodes, ...
    settings: list[Setting]  # the columns
    rows: list[Row]  # the methods, the best first
    differs: tuple[str, ...]  # why these cannot be in the first table: a phrase per reason
    baselines: list[Row | None]  # of each column the row that the others are compared with

    @property
    def dataset(self) -> str:
        """The data set as it was typed; of several texts for the same content, the shortest."""
        texts = {str(run.record["dataset"]) for row in self.rows for run in row.runs}
        return min(texts, key=lambda text: (len(text), text), default=self.protocol["dataset"])

    def entries(self, at: int) -> list[tuple[Row, Cell]]:
        """The cells of a setting, those that there are, with their rows."""
        return [(row, cell) for row in self.rows if (cell := row.cells[at]) is not None]

    def column(self, at: int) -> list[Cell]:
        """The cells of a setting, those that there are, in the order of the rows."""
        return [cell for _, cell in self.entries(at)]

    @property
    def training_differs(self) -> list[Trait]:
        """In what the trainings of the rows of some column differ."""
        columns = [self.column(at) for at in range(len(self.settings))]
        found = [differing(cell.runs for cell in column) for column in columns]
        return [trait for trait in TRAITS if any(trait in traits for traits in found)]

    @property
    def filled(self) -> list[tuple[Setting, Row, Cell]]:
        """Every cell with its setting and its row, setting by setting."""
        return [(s, *entry) for at, s in enumerate(self.settings) for entry in self.entries(at)]

    @property
    def paired(self) -> list[tuple[Setting, Row, Cell, Difference]]:
        """The cells that are compared with a baseline."""
        return [(*part, part[2].paired) for part in self.filled if part[2].paired is not None]


@dataclass
class Comparison:
    """Tables, and what could not be shown and why."""

    tables: list[Table]  # one per protocol
    problems: list[str] = field(default_factory=list)  # a line for each run that is left out
    level: float | None = None  # of the intervals, in (0, 1); None: each table's own
    target: float | None = None  # validation accuracy whose time was asked for
    baseline: str | None = None  # what the rows are compared with

    def level_of(self, table: Table) -> float:
        return self.level if self.level is not None else float(table.protocol["level"])


def compare(
    runs: Sequence[Run], baseline: str | None = None, level: float | None = None, *,
    interval: str | None = None, target: float | None = None, ranks: bool = False,
) -> Comparison:  # fmt: skip
    """Lay runs out in tables, with their intervals and tests.

    Arguments:
        baseline: method, row or id of a run that the others are compared with; None: none.
        level: confidence level of all intervals, in (0, 1); None: that of each record.
        interval: one of ``INTERVALS``; None: ``hierarchical`` where a cell has several training
            seeds, else ``student``.
        target: validation accuracy to be reached, in (0, 1].
        ranks: also do the signed-rank tests, which take longer than all else.

    Raises:
        ConfigError: ``level`` or ``target`` cannot be.
        UnknownName: there is no such interval, or no run is called like the baseline.
    """
    check(level, interval, target)
    comparison = Comparison([], [], level, target, baseline)
    scores: dict[int, tuple[Array, Array]] = {}
    for run in runs:
        try:
            scores[id(run)] = run.checked_scores()
        except RecordError as error:
            comparison.problems.append(str(error))
    usable = [run for run in runs if id(run) in scores]
    layouts, replaced = lay_out(usable, by_level=level is None)
    comparison.problems += replaced
    looks = looks_at(usable)
    tables = [_table(layout, scores, comparison, interval) for layout in layouts]
    comparison.tables += [table for table in tables if table.rows]
    for table in comparison.tables:
        for _, _, cell in table.filled:
            cell.looks = looks.get(id(cell.runs[0]))
    if baseline is not None and comparison.tables:
        rows = [row for table in comparison.tables for row in table.rows]
        if not any(baseline in {*row.names, *(run.record["id"] for run in runs)} for row in rows):
            names = {name for row in rows for name in (row.method, row.entry)}
            hint = "Give one of them, the name of a row, or the id of a run."
            raise UnknownName("baseline", baseline, names, hint)
        for table in comparison.tables:
            against(table, baseline, comparison.level_of(table), ranks=ranks)
    return comparison


def check(level: float | None, interval: str | None, target: float | None) -> None:
    """Raise what :func:`compare` would raise whatever the runs are."""
    if interval is not None and interval not in INTERVALS:
        raise UnknownName("interval", interval, INTERVALS)
    if level is not None and not 0 < level < 1:
        raise ConfigError(f"--level: expected a confidence level such as 0.95, got {level:g}.")
    if target is not None and not 0 < target <= 1:
        raise ConfigError(f"--target: expected an accuracy such as 0.95, got {target:g}.")


def _table(
    layout: Layout, scores: Mapping[int, tuple[Array, Array]], comparison: Comparison,
    interval: str | None,
) -> Table:  # fmt: skip
    """The best rows first; without rows if none of its runs can be used."""
    table = Table(layout.protocol, layout.settings, [], layout.differs, [])
    level, numbers = comparison.level_of(table), dict[Setting, Array]()
    for members, name in zip(layout.rows, layout.names, strict=True):
        usable: dict[Setting, list[Run]] = defaultdict(list)
        for run in members:
            episode, _ = scores[id(run)]
            if np.array_equal(episode, numbers.setdefault(run.setting, episode)):
                usable[run.setting].append(run)
            else:
                comparison.problems.append(
                    f"'{run.folder}' numbers its episodes differently from the others."
                )
        cells = [
            _cell(runs, np.stack([scores[id(run)][1] for run in runs]), comparison, level, interval)
            if (runs := usable[setting])
            else None
            for setting in layout.settings
        ]
        if any(cells):
            table.rows.append(Row(name, cells))
    filled = [at for at in range(len(table.settings)) if table.column(at)]
    table.settings = [table.settings[at] for at in filled]
    table.baselines = [None] * len(filled)
    for row in table.rows:
        row.cells = [row.cells[at] for at in filled]
    columns = [table.column(at) for at in range(len(filled))]
    for column in columns:
        if len(column) > 1:
            best, tied = stats.best_and_tied([cell.scores for cell in column], SIGNIFICANT)
            for i in tied:
                column[i].mark = "tied"
            column[best].mark = "tied" if tied else "best"
    means = [float(np.mean([cell.accuracy for cell in column])) for column in columns]

    def lead(row: Row) -> float:
        """How far it is above the mean of its columns."""
        found = [cell.accuracy - means[at] for at, cell in enumerate(row.cells) if cell]
        return round(float(np.mean(found)), 12)

    table.rows.sort(key=lambda row: (-lead(row), row.name))
    return table


def _cell(
    runs: list[Run], scores: Array, comparison: Comparison, level: float, asked: str | None
) -> Cell | None:
    try:
        kind, covered = _interval(runs, scores, level, asked)
    except RecordError as error:
        comparison.problems.append(str(error))
        return None
    try:
        speed = speed_of(runs, comparison.target)
    except RecordError as error:
        comparison.problems.append(f"{error} No time to the target.")
        speed = speed_of(runs)
    return Cell(tuple(runs), scores, covered, kind, speed)


def _interval(
    runs: list[Run], scores: Array, level: float, asked: str | None
) -> tuple[str, Interval]:
    """The kind of interval and the interval of the scores [seeds, episodes] of a cell."""
    mean, several = scores.mean(0), len(scores) > 1
    kind = asked or ("hierarchical" if several else "student")
    if kind == "hierarchical" and several:
        return kind, stats.hierarchical_interval(scores, level)
    if kind == "seeds":
        return kind, stats.seeds_interval(scores.mean(1), level)
    if kind in ("percentile", "bca"):
        return kind, stats.bootstrap_interval(mean, level, kind)
    if kind != "classes":
        return "student", stats.student_interval(mean, level)
    own = stats.class_interval(mean, runs[0].clusters(), level)
    if own.low is None or own.high is None:
        return kind, own
    low, high = max(own.low, 0.0), min(own.high, 1.0)  # of an accuracy
    return kind, replace(own, half_width=(high - low) / 2, low=low, high=high)


def refuse_unequal(comparison: Comparison, names: Sequence[str]) -> None:
    """Raise ConfigError if the trainings of the rows of a column differ in one of these traits."""
    for table in comparison.tables:
        for at, setting in enumerate(table.settings):
            rows = [(row.name, cell.runs) for row, cell in table.entries(at)]
            if (why := unequal(rows, names)) is not None:
                raise ConfigError(
                    f"--equal {why[0]}: on {setting} {why[1]}. Train them the same way with 'fsb "
                    f"compare METHOD ... --equal {why[0]}', name fewer runs, or leave --equal out "
                    "for a table that shows what differs."
                )


# --- Differences from a baseline, and the best of a column.


def against(table: Table, baseline: str, level: float, *, ranks: bool) -> None:
    """Fill in ``paired`` of every cell and the ``baselines``, and correct over the table.

    Of several rows of a method the baseline is the one with most settings, then of the lowest seed,
    then the newest: never the best.
    """

    def preference(row: Row) -> tuple[bool, bool, int, int]:
        seed = min(run.record["seed"] for run in row.runs)
        return row.name != baseline, row.entry != baseline, row.cells.count(None), seed

    rows = sorted(table.rows, key=lambda row: max(map(age, row.runs)), reverse=True)
    for at in range(len(table.settings)):
        named = [row for row in rows if row.cells[at] and baseline in row.names]
        base = table.baselines[at] = min(named, key=preference, default=None)
        reference = base and base.cells[at]
        for cell in table.column(at):
            if base and reference and cell is not reference:
                paired, seeds = pair(cell, reference, level, ranks=ranks)
                cell.paired = Difference(paired, seeds, base, reference)
    _correct(table)


def pair(a: Cell, b: Cell, level: float, *, ranks: bool) -> tuple[Paired, int]:
    """The difference a - b on the same episodes, and over how many training seeds of each.

    With several seeds of both it is about the methods; where one has more, its first ones take
    part. Else it is about these trainings, each cell by the mean of its seeds: 0 is returned.
    """
    seeds = min(len(a.scores), len(b.scores))
    if seeds > 1:
        return stats.paired_over_seeds(a.scores[:seeds], b.scores[:seeds], level), seeds
    return stats.paired_difference(a.scores.mean(0), b.scores.mean(0), level, ranks=ranks), 0


def _correct(table: Table) -> None:
    """Holm's correction, and what these tests would have found."""
    tested = [part for part in table.paired if part[3].paired.p_t is not None]
    corrected = stats.holm([difference.paired.p_t for *_, difference in tested])
    detectable = cache(stats.detectable_difference)
    for (*_, cell, one), p in zip(tested, corrected, strict=True):
        one.p_holm = float(p)
        if one.found or not one.paired.effect_size:
            continue
        # The sharpest of Holm's thresholds: what passes it is found whatever the others are.
        alpha = SIGNIFICANT / len(tested)
        if one.seeds:
            a, b = cell.scores[: one.seeds], one.reference.scores[: one.seeds]
            one.detectable = stats.detectable_over_seeds(a, b, POWER, alpha)
        else:
            sd = abs(one.paired.difference / one.paired.effect_size)
            one.detectable = sd * detectable(1.0, one.paired.n, POWER, alpha)


# --- Times and memory.


def speed_of(runs: Sequence[Run], target: float | None = None) -> Speed:
    """The medians over runs of one configuration and setting.

    RecordError: the curves that show when validation reached the ``target`` are damaged.
    """
    times = [] if target is None else [seconds_to(run, target) for run in runs]
    known = [seconds for seconds in times if seconds is not None]
    return Speed(
        **{name: _median(runs, path) for name, path in PLACES.items()},
        # An even number of runs has two in the middle: the later one, which may be infinite.
        target_seconds=statistics.median_high(known) if known else None,
        target_reached=sum(map(math.isfinite, known)) if known else None,
        devices=tuple(sorted({run.record["device"]["name"] for run in runs})),
    )


def _median(runs: Sequence[Run], path: Sequence[str]) -> float | None:
    """Of a number in the records; None where it, or what holds it, is missing in all."""
    known = []
    for run in runs:
        value: Any = run.record
        for name in path:
            value = value and value[name]
        known += [] if value is None else [value]
    return statistics.median(known) if known else None


def seconds_to(run: Run, target: float) -> float | None:
    """Seconds of training steps, without validation, until it first was at or above ``target``.

    Infinity if no validation got there; None if the run did not train (or evaluates what another
    run trained) or has never validated. RecordError: validation.csv or steps.csv is missing or
    damaged.
    """
    if run.record["training"] is None or run.record["evaluated_from"]:
        return None
    validated, accuracy = run.columns("validation.csv", "step", "accuracy")
    if not len(validated):
        return None
    reached = validated[accuracy >= target]
    if not len(reached):
        return math.inf
    step, step_ms = run.columns("steps.csv", "step", "step_ms")
    times = step_ms[step <= reached[0]]
    if not np.isfinite(times).all() or len(times) < reached[0]:
        raise RecordError(f"'{run.folder / 'steps.csv'}' lacks steps.")
    return float(times.sum()) / 1e3


# --- Evaluations of a method on the test split: the best of many is too high by the choice.


def looks_at(runs: Sequence[Run]) -> dict[int, Looks]:
    """{id(run): the looks at the test split that it is one of}; runs of the validation split: none.

    Runs that lie in the same folders as these count too, shown or not.
    """
    shown = [run for run in runs if run.record["part"] == TEST]
    own = {run.folder.resolve() for run in shown}
    parents = sorted({folder.parent for folder in own})
    near = [path.parent for parent in parents for path in sorted(parent.glob(f"*/{RECORD}"))]
    beside, _ = load_runs([folder for folder in near if folder not in own])
    everything = [*shown, *(run for run in beside if run.record["part"] == TEST)]
    groups: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for run in everything:
        seeds = groups[_protocol(run)][_configuration(run)]
        seeds[run.record["seed"]] = run.record["test"]["accuracy"]
    found: dict[str, Looks] = {}
    for key, configurations in groups.items():
        each = configurations.values()
        best = max(fmean(seeds.values()) for seeds in each)
        found[key] = Looks(len(each), max(map(len, each)), sum(map(len, each)), best)
    return {id(run): found[_protocol(run)] for run in shown}


def _protocol(run: Run) -> str:
    """One method on one test split and task."""
    protocol = {n: v for n, v in run.protocol().items() if n not in CHOSEN}
    return json.dumps([run.record["method"], run.setting, protocol], sort_keys=True, default=str)


def _configuration(run: Run) -> str:
    """What was tried: all settings but the seed, and on which stream of episodes.

    An evaluation of a run's weights is of the configuration that trained them.
    """
    own = [settings(run), run.record["episode_seed"]]
    return json.dumps(own, sort_keys=True, default=str)
