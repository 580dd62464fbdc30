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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from fewshot_bench.errors import ConfigError, RecordError, UnknownName
from fewshot_bench.results.layout import Layout, lay_out, row_names, seeds_of, settings
from fewshot_bench.results.record import RECORD, TEST, read_record, read_table
from fewshot_bench.results.runs import Array, Run, Setting, age
from fewshot_bench.results.stats import (
    INTERVALS,
    Interval,
    Paired,
    best_and_tied,
    bootstrap_interval,
    class_interval,
    detectable_difference,
    detectable_over_seeds,
    hierarchical_interval,
    holm,
    paired_difference,
    paired_over_seeds,
    seeds_interval,
    student_interval,
)
from fewshot_bench.results.training import TRAITS, Trait, codes, differing, unequal
from fewshot_bench.utils.text import printable_values

SIGNIFICANT = 0.05  # of a p value after Holm's correction
POWER = 0.8  # of the difference that a comparison would have found
# What may be chosen, too, and so makes an evaluation of one test split another one.
CHOSEN = ("episodes", "level", "episode_seed")


@dataclass(frozen=True)
class Speed:
    """Medians over the runs; None where none of them was timed.

    Arguments:
        step_ms, step_ms_p95: a training step: its median, its 95th percentile.
        tasks_per_s: of training.
        adapt_ms, predict_ms: to learn a test task, to classify its queries.
        training_seconds: of the whole training, validation included.
        peak_memory_bytes: on a GPU what was allocated, on a CPU the size of the process.
        parameters: how many numbers the method has.
        target_seconds: of training steps until validation first reached the target; infinite if
            fewer than half of the runs got there; None if nothing was asked for, trained or kept.
        target_reached: how many of the runs got there.
        devices: names of the devices, most often one.
    """

    step_ms: float | None
    step_ms_p95: float | None
    tasks_per_s: float | None
    adapt_ms: float | None
    predict_ms: float | None
    training_seconds: float | None
    peak_memory_bytes: float | None
    parameters: float | None
    target_seconds: float | None
    target_reached: int | None
    devices: tuple[str, ...]


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
    """Test evaluations of one method on one protocol, of all runs that lie together.

    Arguments:
        configurations: how many differ in a setting, or in the seed of their episodes.
        seeds: how many training seeds the most often trained configuration has; they are no looks,
            because all of them are reported.
        evaluations: of all configurations and seeds; the same one again counts once.
        best: the highest accuracy of a configuration, the mean over its seeds.
    """

    configurations: int
    seeds: int
    evaluations: int
    best: float


@dataclass
class Difference:
    """A cell against the baseline's cell of its column, on the same episodes.

    Arguments:
        paired: the difference with its interval and tests.
        seeds: how many training seeds of each, so that it is about the methods; 0 where one of
            them has a single seed, so that it is about these trainings.
        baseline: the row that it is a difference from.
        reference: the cell of that row.
        p_holm: the t test's p value, corrected over all differences of the table; None where
            nothing varies.
        detectable: what would have been found with a power of 80 %, where nothing was found.
    """

    paired: Paired
    seeds: int
    baseline: Row
    reference: Cell
    p_holm: float | None = None
    detectable: float | None = None

    @property
    def found(self) -> bool:
        """Whether the difference survives the correction."""
        return self.p_holm is not None and self.p_holm < SIGNIFICANT


@dataclass
class Cell:
    """One method in one setting.

    Arguments:
        runs: one per training seed, the lowest first.
        scores: accuracy of each seed and episode [seeds, episodes].
        interval: of the accuracy.
        kind: which interval it is: ``student``, ``percentile``, ``bca``, ``classes``,
            ``hierarchical`` or ``seeds``.
        speed: times and memory, the median over the seeds.
        paired: against the baseline; None for the baseline itself, or without one.
        mark: ``best`` if it is better than every other cell of its column after Holm's
            correction over the column's pairs; ``tied`` if it has the highest accuracy, or is not
            significantly different from the cell that has; else empty.
        looks: at the test split, of the method on this protocol; None on the validation split.
    """

    runs: tuple[Run, ...]
    scores: Array = field(repr=False)
    interval: Interval
    kind: str
    speed: Speed
    paired: Difference | None = None
    mark: str = ""
    looks: Looks | None = None

    @property
    def overlap(self) -> dict[str, Any] | None:
        """The classes that took part in making the weights, as the record has it; None: none."""
        found = [run.record.get("overlap") for run in self.runs]
        return next((one for one in found if one and one["classes"]), None)

    @property
    def accuracy(self) -> float:
        """Mean over episodes and seeds."""
        return self.interval.mean

    @property
    def half_width(self) -> float | None:
        """Half width of the interval; None where there is none."""
        return self.interval.half_width

    @property
    def transductive(self) -> bool:
        """Whether the method sees all queries of a task at once."""
        return bool(self.runs[0].record["test"]["transductive"])

    @property
    def trained(self) -> bool:
        """Whether anything was trained."""
        return self.runs[0].record["training"] is not None


@dataclass
class Row:
    """A method with its settings.

    Arguments:
        name: distinguishes it from the other rows of its table.
        cells: one per setting of the table; None where the method has no run.
    """

    name: str
    cells: list[Cell | None]

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
        """The method's plain name."""
        return str(self.runs[0].record["method"])

    @property
    def runs(self) -> list[Run]:
        """The runs of all its cells."""
        return [run for cell in self.cells if cell is not None for run in cell.runs]


@dataclass
class Table:
    """Methods and settings whose protocols agree in everything else.

    Arguments:
        protocol: what all runs share: data set, split, query count, sampling, episodes, level...
        settings: the columns.
        rows: the methods, the best first.
        differs: why these cannot stand in the first table: one phrase per reason.
        baselines: of each column the row that the others are compared with, or None.
    """

    protocol: dict[str, Any]
    settings: list[Setting]
    rows: list[Row]
    differs: tuple[str, ...]
    baselines: list[Row | None]

    @property
    def dataset(self) -> str:
        """The data set as it was typed; of several texts for the same content, the shortest."""
        texts = {str(run.record["dataset"]) for row in self.rows for run in row.runs}
        return min(texts, key=lambda text: (len(text), text), default=self.protocol["dataset"])

    def column(self, at: int) -> list[Cell]:
        """The cells of a setting, those that there are, in the order of the rows."""
        return [cell for row in self.rows if (cell := row.cells[at]) is not None]

    def differs_at(self, at: int) -> list[Trait]:
        """In what the trainings of a column's rows differ."""
        return differing(cell.runs for cell in self.column(at))

    @property
    def training_differs(self) -> list[Trait]:
        """In what the trainings of the rows of some column differ."""
        found = {trait.name for at in range(len(self.settings)) for trait in self.differs_at(at)}
        return [trait for trait in TRAITS if trait.name in found]

    @property
    def filled(self) -> list[tuple[Setting, Row, Cell]]:
        """Every cell with its setting and its row, setting by setting."""
        return [
            (setting, row, cell)
            for at, setting in enumerate(self.settings)
            for row in self.rows
            if (cell := row.cells[at]) is not None
        ]

    @property
    def paired(self) -> list[tuple[Setting, Row, Cell, Difference]]:
        """The cells that are compared with a baseline."""
        return [
            (setting, row, cell, cell.paired)
            for setting, row, cell in self.filled
            if cell.paired is not None
        ]


@dataclass
class Comparison:
    """Tables, and what could not be shown and why.

    Arguments:
        tables: one per protocol.
        problems: a line for each run that is left out.
        level: of the intervals, in (0, 1); None: each table's own.
        target: validation accuracy whose time was asked for, or None.
        baseline: what the rows are compared with, or None.
    """

    tables: list[Table]
    problems: list[str] = field(default_factory=list)
    level: float | None = None
    target: float | None = None
    baseline: str | None = None

    def level_of(self, table: Table) -> float:
        """The level of a table's intervals."""
        return self.level if self.level is not None else float(table.protocol["level"])


def compare(
    runs: Sequence[Run],
    baseline: str | None = None,
    level: float | None = None,
    *,
    interval: str | None = None,
    target: float | None = None,
    ranks: bool = False,
) -> Comparison:
    """Lay runs out in tables, with their intervals and tests.

    Arguments:
        runs: see :func:`load_runs`.
        baseline: method, row or id of a run that the others are compared with; None: none.
        level: confidence level of all intervals, in (0, 1); None: that of each record.
        interval: one of ``INTERVALS``; None: ``hierarchical`` where a cell has several training
            seeds, else ``student``.
        target: validation accuracy whose time is wanted, in (0, 1].
        ranks: also do the signed-rank tests, which take longer than all else.

    Returns:
        The comparison; its ``problems`` name runs that could not be used.

    Raises:
        ConfigError: ``interval``, ``level`` or ``target`` cannot be.
        UnknownName: no run is called like the baseline.
    """
    check(level, interval, target)
    comparison = Comparison([], [], level, target, baseline)
    usable, scores = list[Run](), dict[int, tuple[Array, Array]]()
    for run in runs:
        try:
            scores[id(run)] = run.checked_scores()
            usable.append(run)
        except RecordError as error:
            comparison.problems.append(str(error))
    layouts, replaced = lay_out(usable, by_level=level is None)
    comparison.problems += replaced
    looks = looks_at(usable)
    for layout in layouts:
        table = _table(layout, scores, comparison, interval)
        if table is not None:
            for _, _, cell in table.filled:
                cell.looks = looks.get(id(cell.runs[0]))
            comparison.tables.append(table)
    if baseline is not None and comparison.tables:
        _check_baseline(comparison, runs, baseline)
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


def _check_baseline(comparison: Comparison, runs: Sequence[Run], baseline: str) -> None:
    rows = [row for table in comparison.tables for row in table.rows]
    names = {name for row in rows for name in (row.method, row.entry)}
    known = names | {row.name for row in rows} | {run.record["id"] for run in runs}
    if baseline not in known:
        hint = "Give one of them, the name of a row, or the id of a run."
        raise UnknownName("baseline", baseline, names, hint)


def _table(
    layout: Layout,
    scores: Mapping[int, tuple[Array, Array]],
    comparison: Comparison,
    interval: str | None,
) -> Table | None:
    """Rows and cells of a table; None if none of its runs can be used."""
    table = Table(
        layout.protocol, layout.settings, [], layout.differs, [None] * len(layout.settings)
    )
    level = comparison.level_of(table)
    numbers: dict[Setting, Array] = {}
    for members, name in zip(layout.rows, row_names(layout.rows, layout.choices), strict=True):
        row = Row(name, [])
        for setting in layout.settings:
            own = []
            for run in members:
                if run.setting != setting:
                    continue
                episode, _ = scores[id(run)]
                if np.array_equal(episode, numbers.setdefault(setting, episode)):
                    own.append(run)
                else:
                    comparison.problems.append(
                        f"'{run.folder}' numbers its episodes differently from the others."
                    )
            values = [scores[id(run)][1] for run in own]
            row.cells.append(_cell(own, values, comparison, level, interval) if own else None)
        if row.runs:
            table.rows.append(row)
    filled = [at for at in range(len(table.settings)) if table.column(at)]
    table.settings = [table.settings[at] for at in filled]
    table.baselines = [None] * len(filled)
    for row in table.rows:
        row.cells = [row.cells[at] for at in filled]
    for at in range(len(filled)):
        mark_best(table.column(at))
    _sort(table)
    return table if table.rows else None


def _cell(
    runs: list[Run],
    values: list[Array],
    comparison: Comparison,
    level: float,
    interval: str | None,
) -> Cell | None:
    scores = np.stack(values)
    try:
        kind, covered = _interval(runs, scores, level, interval)
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
    several = len(scores) > 1
    kind = asked or ("hierarchical" if several else "student")
    if kind == "hierarchical" and several:
        return kind, hierarchical_interval(scores, level)
    if kind == "seeds":
        return kind, seeds_interval(scores.mean(1), level)
    mean = scores.mean(0)
    if kind in ("percentile", "bca"):
        return kind, bootstrap_interval(mean, level, kind)
    if kind == "classes":
        own = class_interval(mean, runs[0].clusters(), level)
        if own.low is None or own.high is None:
            return kind, own
        low, high = max(own.low, 0.0), min(own.high, 1.0)  # of an accuracy
        return kind, replace(own, half_width=(high - low) / 2, low=low, high=high)
    return "student", student_interval(mean, level)


def _sort(table: Table) -> None:
    """The best rows first: by how far they are above the mean of their columns."""
    means = [
        float(np.mean([cell.accuracy for cell in table.column(at)]))
        for at in range(len(table.settings))
    ]

    def key(row: Row) -> tuple[float, str]:
        lead = [cell.accuracy - means[at] for at, cell in enumerate(row.cells) if cell]
        return -round(float(np.mean(lead)), 12), row.name

    table.rows.sort(key=key)


def refuse_unequal(comparison: Comparison, names: Sequence[str]) -> None:
    """Compare the trainings of the rows of every column of every table.

    Raises:
        ConfigError: they differ in one of these traits; names the first, with the values.
    """
    for table in comparison.tables:
        for at, setting in enumerate(table.settings):
            rows = [(row.name, cell.runs) for row in table.rows if (cell := row.cells[at])]
            if (why := unequal(rows, names)) is not None:
                raise ConfigError(
                    f"--equal {why[0]}: on {setting} {why[1]}. Train them the same way with 'fsb "
                    f"compare METHOD ... --equal {why[0]}', name fewer runs, or leave --equal out "
                    "for a table that shows what differs."
                )


# --- Differences from a baseline, and the best of a column.


def against(table: Table, baseline: str, level: float, *, ranks: bool) -> None:
    """Pair every cell with the baseline's cell of its column, and correct over the table.

    Arguments:
        table: its cells' ``paired`` and its ``baselines`` are filled in.
        baseline: name of a method, of a grid's entry or of a row, or id of a run. Of several rows
            of a method it is the one with most settings, then of the lowest seed, then the newest:
            never the best.
        level: of the intervals.
        ranks: also do the signed-rank tests.
    """
    named = [
        row
        for row in table.rows
        if baseline in (row.name, row.entry, row.method)
        or baseline in {run.record["id"] for run in row.runs}
    ]
    named.sort(key=lambda row: max(map(age, row.runs)), reverse=True)
    named.sort(key=lambda row: min(run.record["seed"] for run in row.runs))
    named.sort(key=lambda row: sum(cell is None for cell in row.cells))
    named.sort(key=lambda row: (row.name != baseline, row.entry != baseline))
    for at in range(len(table.settings)):
        base = next((row for row in named if row.cells[at] is not None), None)
        table.baselines[at] = base
        if base is None:
            continue
        reference = base.cells[at]
        assert reference is not None
        for cell in table.column(at):
            if cell is not reference:
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
        return paired_over_seeds(a.scores[:seeds], b.scores[:seeds], level), seeds
    return paired_difference(a.scores.mean(0), b.scores.mean(0), level, ranks=ranks), 0


def _correct(table: Table) -> None:
    """Holm's correction, and what these tests would have found."""
    tested = [part for part in table.paired if part[3].paired.p_t is not None]
    corrected = holm([difference.paired.p_t for *_, difference in tested])
    for (*_, cell, one), p in zip(tested, corrected, strict=True):
        one.p_holm = float(p)
        if one.found or not one.paired.effect_size:
            continue
        # The sharpest of Holm's thresholds: what passes it is found whatever the others are.
        alpha = SIGNIFICANT / len(tested)
        if one.seeds:
            a, b = cell.scores[: one.seeds], one.reference.scores[: one.seeds]
            one.detectable = detectable_over_seeds(a, b, POWER, alpha)
        else:
            sd = abs(one.paired.difference / one.paired.effect_size)
            one.detectable = sd * _detectable(one.paired.n, alpha)


@cache
def _detectable(episodes: int, alpha: float) -> float:
    """The difference that is found with ``POWER``, in standard deviations of one."""
    return detectable_difference(1.0, episodes, POWER, alpha)


def mark_best(cells: Sequence[Cell]) -> None:
    """Mark the best of a column, or those not significantly different from it."""
    if len(cells) < 2:
        return
    best, tied = best_and_tied([cell.scores for cell in cells], SIGNIFICANT)
    for i in tied:
        cells[i].mark = "tied"
    cells[best].mark = "tied" if tied else "best"


# --- Times and memory.


def speed_of(runs: Sequence[Run], target: float | None = None) -> Speed:
    """The medians over runs.

    Arguments:
        runs: of one configuration and setting.
        target: validation accuracy whose time is wanted.

    Raises:
        RecordError: the curves that tell of the target are damaged.
    """
    numbers = {
        name: _median([_at(run.record, path) for run in runs]) for name, path in PLACES.items()
    }
    times = [] if target is None else [seconds_to(run, target) for run in runs]
    known = [seconds for seconds in times if seconds is not None]
    return Speed(
        **numbers,
        # An even number of runs has two in the middle: the later one, which may be infinite.
        target_seconds=statistics.median_high(known) if known else None,
        target_reached=sum(map(math.isfinite, known)) if known else None,
        devices=tuple(sorted({run.record["device"]["name"] for run in runs})),
    )


def _at(record: Any, path: Sequence[str]) -> float | None:
    """A number of a record; None where it, or what holds it, is missing."""
    for name in path:
        record = (record or {}).get(name)
    return record


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if len(known) > 1 else next(iter(known), None)


def seconds_to(run: Run, target: float) -> float | None:
    """Seconds of training steps until the first validation at or above ``target``.

    The times are those of ``steps.csv``, summed; validation itself is not counted.

    Returns:
        Infinity if no validation got there; None if the run did not train (or evaluates what
        another run trained) or has never validated.

    Raises:
        RecordError: ``validation.csv`` or ``steps.csv`` is missing or damaged.
    """
    if run.record["training"] is None or run.record.get("evaluated_from"):
        return None
    curve = _columns(run.folder / "validation.csv", "step", "accuracy")
    if not len(curve["step"]):
        return None
    reached = curve["step"][curve["accuracy"] >= target]
    if not len(reached):
        return math.inf
    steps = _columns(run.folder / "steps.csv", "step", "step_ms")
    times = steps["step_ms"][steps["step"] <= reached.min()]
    if not np.isfinite(times).all() or len(times) < reached.min():
        raise RecordError(f"'{run.folder / 'steps.csv'}' lacks steps.")
    return float(times.sum()) / 1e3


def _columns(path: Path, *names: str) -> dict[str, Array]:
    """Columns of a table, all of them.

    Raises:
        RecordError: the table is missing or damaged, or lacks one.
    """
    table = read_table(path, names)
    if set(table) != set(names):
        raise RecordError(f"'{path}' lacks a column.")
    return table


# --- Evaluations of a method on the test split: the best of many is too high by the choice.


def looks_at(runs: Sequence[Run]) -> dict[int, Looks]:
    """The looks at the test split that each run is one of: {id(run): looks}.

    Runs of the validation split are no looks, and have none. Runs that lie in the same folders as
    these count too, shown or not.
    """
    shown = [run for run in runs if run.record["part"] == TEST]
    everything = [*shown, *_beside(shown)]
    by_id = {run.record["id"]: run for run in everything}
    groups: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for run in everything:
        seeds = groups[_protocol(run)][_configuration(run, by_id)]
        seeds[run.record["seed"]] = run.record["test"]["accuracy"]
    found = {
        key: Looks(
            len(configurations),
            max(map(len, configurations.values())),
            sum(map(len, configurations.values())),
            max(fmean(seeds.values()) for seeds in configurations.values()),
        )
        for key, configurations in groups.items()
    }
    return {id(run): found[_protocol(run)] for run in shown}


def _protocol(run: Run) -> str:
    """One method on one test split and task."""
    protocol = {n: v for n, v in run.protocol().items() if n not in CHOSEN}
    return _text([run.record["method"], run.setting, sorted(protocol.items())])


def _configuration(run: Run, by_id: Mapping[str, Run]) -> str:
    """What was tried: all settings but the seed, and on which stream of episodes.

    An evaluation of a run's weights is of the configuration that trained them. Its record has
    it; an older one does not, and then the run counts that it came from, through any number of
    evaluations.
    """
    recorded = run.seedless or run.record.get("training_summary") is not None
    own = settings(run) if recorded else settings(_trained(run, by_id)) | codes(run)
    return _text([sorted(own.items()), run.record["episode_seed"]])


def _trained(run: Run, by_id: Mapping[str, Run]) -> Run:
    """The run whose weights an evaluation used, as far as it is here."""
    seen: set[str] = set()
    while (origin := str(run.record.get("evaluated_from"))) in by_id and origin not in seen:
        seen.add(origin)
        run = by_id[origin]
    return run


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _beside(runs: Iterable[Run]) -> list[Run]:
    """Finished runs with a test result in the folders where these lie, without these."""
    own = {run.folder.resolve() for run in runs}
    found = []
    for parent in sorted({folder.parent for folder in own}):
        try:
            folders = sorted(path for path in parent.iterdir() if (path / RECORD).is_file())
        except OSError:
            continue
        for folder in folders:
            if folder in own:
                continue
            try:
                record = printable_values(read_record(folder))
            except RecordError:
                continue
            if record["status"] == "completed" and record["test"] and record["part"] == TEST:
                found.append(Run(folder, record))
    return found
