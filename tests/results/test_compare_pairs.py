"""Tests of all pairs of a column at once agree with one test after the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fewshot_bench.results.comparison import Cell, Table, compare, pair
from fewshot_bench.results.runs import load_runs
from fewshot_bench.results.stats import best_and_tied, holm
from fewshot_bench.results.stats.tests import all_p_values
from tests.results.made_up_runs import scores_of, write_run

TRAINED = {"steps": 10, "seconds": 1.0, "warmup_seconds": 0.0, "engine": "eager"}


def table_of(tmp_path: Path, counts: list[int], spread: float, step: float = 0.015) -> Table:
    """Methods with these numbers of seeds, whose means differ from seed to seed."""
    rng = np.random.default_rng(len(counts))
    for i, count in enumerate(counts):
        for seed in range(count):
            mean = 0.78 + step * i + spread * rng.normal()
            scores = scores_of(100 * i + seed, mean)
            write_run(tmp_path, f"m{i}", scores, seed=seed, training=TRAINED)
    (table,) = compare(load_runs([tmp_path])[0]).tables
    return table


def one_by_one(cells: list[Cell], one: np.ndarray, other: np.ndarray) -> list[float | None]:
    pairs = zip(one, other, strict=True)
    return [pair(cells[i], cells[j], 0.95, ranks=False)[0].p_t for i, j in pairs]


@pytest.mark.parametrize("counts", [[1] * 6, [3] * 5, [1, 3, 5, 2, 3, 1]], ids=str)
@pytest.mark.parametrize("spread", [0.0, 0.02])
def test_p_values(counts: list[int], spread: float, tmp_path: Path) -> None:
    cells = table_of(tmp_path, counts, spread).column(0)
    one, other = np.triu_indices(len(cells), 1)
    expected = one_by_one(cells, one, other)
    found = all_p_values([cell.scores for cell in cells], one, other)
    np.testing.assert_allclose(found, np.array(expected, dtype=float), rtol=1e-4)


@pytest.mark.parametrize(
    ("counts", "spread", "step"),
    [([1] * 8, 0.002, 0.004), ([4] * 6, 0.01, 0.02)],
    ids=["a seed each", "four each"],
)
def test_who_is_tied_with_the_best(
    counts: list[int], spread: float, step: float, tmp_path: Path
) -> None:
    cells = table_of(tmp_path, counts, spread, step).column(0)
    one, other = np.triu_indices(len(cells), 1)
    corrected = dict(
        zip(zip(one, other, strict=True), holm(one_by_one(cells, one, other)), strict=True)
    )
    best, tied = best_and_tied([cell.scores for cell in cells], 0.05)
    assert cells[best].accuracy == max(cell.accuracy for cell in cells)
    others = [i for i in range(len(cells)) if i != best]
    kept = [i for i in others if not corrected[min(i, best), max(i, best)] < 0.05]
    assert tied == kept
    assert 0 < len(tied) < len(others)  # else this shows little


def test_what_does_not_vary_is_a_tie(tmp_path: Path) -> None:
    for method in ("a", "b"):
        for seed in range(2):
            scores = scores_of(seed)
            write_run(tmp_path, method, scores, seed=seed, training=TRAINED)
    write_run(tmp_path, "c", scores_of(5, 0.3), training=TRAINED)
    (table,) = compare(load_runs([tmp_path])[0]).tables
    assert [cell.mark for cell in table.column(0)] == ["tied", "tied", ""]
