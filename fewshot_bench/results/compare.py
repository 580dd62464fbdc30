"""Runs side by side: a row per method, a column per setting, paired on the same episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fewshot_bench.errors import ConfigError, RecordError, UnknownName
from fewshot_bench.results.comparison import Cell, Comparison, Row, Table
from fewshot_bench.results.labels import row_names
from fewshot_bench.results.looks import looks_at
from fewshot_bench.results.pivot import Layout, lay_out
from fewshot_bench.results.runs import Array, Run, Setting, load_runs
from fewshot_bench.results.speed import speed_of
from fewshot_bench.results.stats import intervals
from fewshot_bench.results.stats.differences import against, mark_best
from fewshot_bench.results.stats.intervals import INTERVALS
from fewshot_bench.results.stats.tests import Interval, student_interval

__all__ = ["INTERVALS", "Run", "check", "compare", "load_runs"]


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
        level: of all intervals, in (0, 1); None: the level of each record.
        interval: one of ``INTERVALS``; None: ``hierarchical`` where a cell has several training
            seeds, else ``student``.
        target: validation accuracy whose time is wanted, in (0, 1].
        ranks: also do the signed-rank tests, which take longer than all else.

    Returns:
        The comparison; its ``problems`` tell of runs that could not be used.

    Raises:
        ConfigError: ``interval``, ``level`` or ``target`` cannot be.
        UnknownName: no run is called like the baseline.
    """
    check(level, interval, target)
    usable, problems = _with_scores(runs)
    layouts, replaced = lay_out([run for run, _ in usable], by_level=level is None)
    comparison = Comparison([], problems + replaced, level, target, baseline)
    scores = {id(run): values for run, values in usable}
    looks = looks_at([run for run, _ in usable])
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
        raise ConfigError(f"--level {level:g} is no level of confidence; give one like 0.95.")
    if target is not None and not 0 < target <= 1:
        raise ConfigError(f"--target {target:g} is no accuracy; give a fraction, like 0.95.")


def _check_baseline(comparison: Comparison, runs: Sequence[Run], baseline: str) -> None:
    rows = [row for table in comparison.tables for row in table.rows]
    names = {name for row in rows for name in (row.method, row.entry)}
    known = names | {row.name for row in rows} | {run.record["id"] for run in runs}
    if baseline not in known:
        hint = "Give one of them, the name of a row, or the id of a run."
        raise UnknownName("baseline", baseline, names, hint)


Scores = tuple[Array, Array]


def _with_scores(runs: Sequence[Run]) -> tuple[list[tuple[Run, Scores]], list[str]]:
    """The runs whose episodes can be read, and one line for each of the others."""
    usable, problems = [], []
    for run in runs:
        try:
            usable.append((run, run.checked_scores()))
        except RecordError as error:
            problems.append(str(error))
    return usable, problems


def _table(
    layout: Layout, scores: dict[int, Scores], comparison: Comparison, interval: str | None
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
                        f"'{run.folder}' numbers its episodes otherwise than the others do."
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
        return kind, intervals.hierarchical_interval(scores, level)
    if kind == "seeds":
        return kind, intervals.seeds_interval(scores.mean(1), level)
    mean = scores.mean(0)
    if kind in ("percentile", "bca"):
        return kind, intervals.bootstrap_interval(mean, level, kind)
    if kind == "classes":
        return kind, _of_fractions(intervals.class_interval(mean, runs[0].clusters(), level))
    return "student", student_interval(mean, level)


def _of_fractions(interval: Interval) -> Interval:
    """The interval of an accuracy, whose ends do not leave [0, 1]."""
    if interval.low is None or interval.high is None:
        return interval
    low, high = max(interval.low, 0.0), min(interval.high, 1.0)
    return replace(interval, half_width=(high - low) / 2, low=low, high=high)


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
