"""Tests within a table: against the baseline, and which cells of a column are the best."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from fewshot_bench.results.comparison import SIGNIFICANT, Cell, Difference, Table
from fewshot_bench.results.runs import age
from fewshot_bench.results.stats.intervals import (
    detectable_difference,
    detectable_over_seeds,
    holm,
    paired_over_seeds,
)
from fewshot_bench.results.stats.pairs import best_and_tied
from fewshot_bench.results.stats.tests import Paired, paired_difference

POWER = 0.8  # of the difference that a comparison would have found


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
                cell.paired = Difference(paired, seeds, base)
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
    for (setting, _, cell, one), p in zip(tested, corrected, strict=True):
        one.p_holm = p
        if one.found or not one.paired.effect_size:
            continue
        # The sharpest of Holm's thresholds: what passes it is found whatever the others are.
        alpha = SIGNIFICANT / len(tested)
        if one.seeds:
            base = one.baseline.cells[table.settings.index(setting)]
            assert base is not None
            a, b = cell.scores[: one.seeds], base.scores[: one.seeds]
            one.detectable = detectable_over_seeds(a, b, POWER, alpha)
        else:
            sd = abs(one.paired.difference / one.paired.effect_size)
            one.detectable = sd * _detectable(one.paired.n, alpha)


@cache
def _detectable(episodes: int, alpha: float) -> float:
    """The difference that is found with ``POWER``, in standard deviations of one."""
    return detectable_difference(1.0, episodes, POWER, alpha)


def mark_best(cells: Sequence[Cell]) -> None:
    """Mark the best of a column, or those that cannot be told from it."""
    if len(cells) < 2:
        return
    best, tied = best_and_tied(cells, SIGNIFICANT)
    for i in tied:
        cells[i].mark = "tied"
    cells[best].mark = "tied" if tied else "best"
