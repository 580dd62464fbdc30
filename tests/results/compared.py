"""Comparisons of made-up runs, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewshot_bench.results.comparison import Cell, Comparison, Table, compare
from fewshot_bench.results.runs import load_runs


def compared(runs: Path, baseline: str | None = None, **options: Any) -> Comparison:
    found, problems = load_runs([runs])
    result = compare(found, baseline, **options)
    result.problems[:0] = problems
    return result


def only(comparison: Comparison) -> Table:
    (table,) = comparison.tables
    return table


def methods(table: Table) -> list[str]:
    return [row.method for row in table.rows]


def cell(table: Table, method: str, at: int = 0) -> Cell:
    (found,) = (row.cells[at] for row in table.rows if row.method == method)
    assert found is not None
    return found
