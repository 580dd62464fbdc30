"""The pictures of a report: for each table those kinds that its runs have something for."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fewshot_bench.errors import FewshotBenchError, RecordError
from fewshot_bench.figures import KINDS, check, draw
from fewshot_bench.results.comparison import Comparison, Row, Table
from fewshot_bench.results.sentences import heading, listed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fewshot_bench.results.runs import Run

# Pictures of more rows cannot be read, and each table has a set of its own.
MOST_ROWS, MOST_TABLES = 8, 3
TITLES = {
    "forest": "paired differences from the baseline, by setting",
    "confusion": "which class was taken for which in the hardest test episode",
}
# Where those who do not see a picture find its numbers.
NUMBERS = {
    "forest": " The numbers are in the table of differences.",
    "time": " Training times are in the table of speed.",
    "settings": " The numbers are in the table of accuracies.",
    "steps": " Medians are in the table of speed.",
}


@dataclass(frozen=True)
class Picture:
    """A picture inside a page.

    Arguments:
        kind: of ``fewshot_bench.figures.KINDS``.
        title: what it shows.
        alt: the same for those who do not see it, with where the numbers are.
        source: a ``data:`` address of an SVG.
    """

    kind: str
    title: str
    alt: str
    source: str


@dataclass(frozen=True)
class Gallery:
    """The pictures of a table, and what they leave out."""

    pictures: list[Picture]
    words: str


def gallery(comparison: Comparison) -> tuple[list[Gallery], list[str]]:
    """Draw the pictures of a comparison.

    Arguments:
        comparison: its first ``MOST_TABLES`` tables get pictures, of their best ``MOST_ROWS`` rows.

    Returns:
        One gallery per table, and a line for each picture that failed.

    Raises:
        ConfigError: there is no matplotlib.
    """
    check("learning")
    told: list[str] = []
    level = comparison.level_of
    galleries = [_of_table(t, level(t), told) for t in comparison.tables[:MOST_TABLES]]
    words = f"Pictures are drawn for the first {MOST_TABLES} tables; fsb figure draws others."
    return galleries + [Gallery([], words) for _ in comparison.tables[MOST_TABLES:]], told


def _of_table(table: Table, level: float, told: list[str]) -> Gallery:
    rows = _chosen(table)
    pictures = []
    for kind, what in KINDS.items():
        try:
            figure = _figure(kind, table, rows, level)
        except RecordError:  # no run has what this kind needs
            continue
        except FewshotBenchError as error:
            told.append(f"picture '{kind}': {error}")
            continue
        if figure is not None:
            title = TITLES.get(kind, what.sentence)
            alt = f"{title}, for {listed(row.name for row in rows)} on {heading(table)}."
            pictures.append(Picture(kind, title, alt + NUMBERS.get(kind, ""), _address(figure)))
    hidden = len(table.rows) - len(rows)
    words = f"Pictures of {len(rows)} rows; {hidden} more are in the tables." if hidden else ""
    return Gallery(pictures, words)


def _chosen(table: Table) -> list[Row]:
    """The best rows, and the baselines."""
    rows = table.rows[:MOST_ROWS]
    for row in table.baselines:
        if row is not None and all(row is not other for other in rows):
            rows = [*rows, row]
    return rows


def _figure(kind: str, table: Table, rows: list[Row], level: float) -> Figure | None:
    if kind == "settings" and len(table.settings) < 2:
        return None  # a lone point
    if kind == "confusion":
        return draw(kind, _side_by_side(table, rows))
    if kind != "forest":
        return draw(kind, [run for row in rows for run in row.runs])
    if not table.paired:
        return None
    from matplotlib import rc_context

    from fewshot_bench.figures import forest, style

    with rc_context(style.RC):
        return forest.draw_table(table, rows, level)


def _side_by_side(table: Table, rows: list[Row]) -> list[Run]:
    """One run of the best row and of the baseline, of the same episodes."""
    first = [cell.runs[0] for row in rows if (cell := row.cells[0]) is not None]
    base = table.baselines[0]
    other = [cell.runs[0] for cell in (base.cells[0] if base else None,) if cell is not None]
    return list({id(run): run for run in [*first[:1], *other]}.values())


def _address(figure: Figure) -> str:
    from fewshot_bench.figures.style import rendered

    return f"data:image/svg+xml;base64,{base64.b64encode(rendered(figure, 'svg')).decode()}"
