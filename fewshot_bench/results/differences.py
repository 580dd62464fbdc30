"""Tests within a table: against the baseline, and which cells of a column are the best."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fewshot_bench.results.comparison import SIGNIFICANT, Cell, Difference, Table
from fewshot_bench.results.pivot import age
from fewshot_bench.results.runs import Array
from fewshot_bench.results.statistics import Paired, paired_difference

POWER = 0.8  # of the difference that a comparison would have found
# Variances of differences below this are rounding: one query of 1,000 in one of 100,000 episodes
# makes 1e-11.
ROUNDING = 1e-13


def against(table: Table, baseline: str, level: float, *, ranks: bool) -> None:
    """Pair every cell with the baseline's cell of its column, and correct over the table.

    Arguments:
        table: its cells' ``paired`` and its ``baselines`` are filled in.
        baseline: name of a method or a row, or id of a run. Of several rows of a method it is the
            one with most settings, then of the lowest seed, then the newest: never the best.
        level: of the intervals.
        ranks: also do the signed-rank tests.
    """
    named = [
        row
        for row in table.rows
        if baseline in (row.name, row.method) or baseline in {r.record["id"] for r in row.runs}
    ]
    named.sort(key=lambda row: max(map(age, row.runs)), reverse=True)
    named.sort(key=lambda row: min(run.record["seed"] for run in row.runs))
    named.sort(key=lambda row: sum(cell is None for cell in row.cells))
    for at in range(len(table.settings)):
        base = next((row for row in named if row.cells[at] is not None), None)
        table.baselines[at] = base
        if base is None:
            continue
        reference = base.cells[at]
        assert reference is not None
        for cell in table.column(at):
            if cell is not reference:
                paired, over_seeds = pair(cell, reference, level, ranks=ranks)
                cell.paired = Difference(paired, over_seeds, base)
    _correct([difference for *_, difference in table.paired])


def pair(a: Cell, b: Cell, level: float, *, ranks: bool) -> tuple[Paired, bool]:
    """The difference a - b on the same episodes, and whether it is one over seeds.

    With several seeds of both it is about the methods. Else it is about these trainings, each
    cell by the mean of its seeds.
    """
    from fewshot_bench.results.intervals import paired_over_seeds

    if len(a.scores) > 1 and len(b.scores) > 1:
        return paired_over_seeds(a.scores, b.scores, level), True
    return paired_difference(a.scores.mean(0), b.scores.mean(0), level, ranks=ranks), False


def _correct(differences: Sequence[Difference]) -> None:
    """Holm's correction, and what these tests would have found."""
    from fewshot_bench.results.power import detectable_difference, holm

    tested = [one for one in differences if one.paired.p_t is not None]
    for one, p in zip(tested, holm([one.paired.p_t for one in tested]), strict=True):
        one.p_holm = p
        if not one.found and one.paired.effect_size:
            # The sharpest of Holm's thresholds: what passes it is found whatever the others are.
            sd = abs(one.paired.difference / one.paired.effect_size)
            alpha = SIGNIFICANT / len(tested)
            one.detectable = detectable_difference(sd, one.paired.n, POWER, alpha)


def mark_best(cells: Sequence[Cell]) -> None:
    """Mark the best of a column, or those that cannot be told from it.

    Every pair of cells is tested, and Holm's correction is over all of them.
    """
    if len(cells) < 2:
        return
    from fewshot_bench.results.power import holm

    one, other = np.triu_indices(len(cells), 1)
    p_values = _tests(cells, one, other)
    tested = ~np.isnan(p_values)
    corrected = np.ones(len(one))
    corrected[tested] = holm(p_values[tested].tolist())
    best = max(range(len(cells)), key=lambda i: cells[i].accuracy)
    # Of each pair with the best one, the other.
    tied = (one + other - best)[((one == best) | (other == best)) & (corrected >= SIGNIFICANT)]
    for i in tied:
        cells[i].mark = "tied"
    cells[best].mark = "tied" if len(tied) else "best"


Indices = npt.NDArray[np.intp]


def _tests(cells: Sequence[Cell], one: Indices, other: Indices) -> Array:
    """The p value of each pair; NaN where the difference does not vary."""
    if all(len(cell.scores) == 1 for cell in cells):
        return _t_tests(np.concatenate([cell.scores for cell in cells]), one, other)
    p_values = [
        pair(cells[i], cells[j], 0.95, ranks=False)[0].p_t for i, j in zip(one, other, strict=True)
    ]
    return np.array([math.nan if p is None else p for p in p_values])


def _t_tests(scores: Array, one: Indices, other: Indices) -> Array:
    """Two-sided p values of the paired t tests of rows of the scores [rows, episodes]."""
    from scipy.special import stdtr

    n = scores.shape[1]
    if n < 2:
        return np.full(len(one), math.nan)
    mean = scores.mean(1)
    rest = scores - mean[:, None]
    products = rest @ rest.T / (n - 1)
    own = np.diag(products)
    variance = own[one] + own[other] - 2 * products[one, other]
    variance[variance < ROUNDING] = math.nan
    p: Array = 2 * stdtr(n - 1, -np.abs(mean[one] - mean[other]) / np.sqrt(variance / n))
    return p
