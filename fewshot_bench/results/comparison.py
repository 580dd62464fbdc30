"""What exporters get: runs side by side. ``fewshot_bench.results.compare`` fills it in.

A :class:`Comparison` has tables; a table has settings (its columns) and rows (methods); a row has
one :class:`Cell` per setting, or None where the method has no run. Scores are fractions, times ms
or seconds as their names say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fewshot_bench.results.labels import seeds_of
from fewshot_bench.results.looks import Looks
from fewshot_bench.results.runs import Array, Run, Setting
from fewshot_bench.results.speed import Speed
from fewshot_bench.results.stats.tests import Interval, Paired
from fewshot_bench.results.training import differing
from fewshot_bench.results.traits import TRAITS, Trait

SIGNIFICANT = 0.05  # of a p value after Holm's correction


@dataclass
class Difference:
    """A cell against the baseline's cell of its column, on the same episodes.

    Arguments:
        paired: the difference with its interval and tests.
        seeds: how many training seeds of each, so that it is about the methods; 0 where one of
            them has a single seed, so that it is about these trainings.
        baseline: the row that it is a difference from.
        p_holm: the t test's p value, corrected over all differences of the table; None where
            nothing varies.
        detectable: what would have been found with a power of 80 %, where nothing was found.
    """

    paired: Paired
    seeds: int
    baseline: Row
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
            correction over the column's pairs; ``tied`` if it has the highest accuracy, or cannot
            be told from the cell that has; else empty.
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
        """What stands behind the ±; None where there is no interval."""
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
        name: tells it from the other rows of its table.
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
        """What a grid calls it, whatever tells it from other rows; else the method's name."""
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
