"""What a run answered: per class and per episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fewshot_bench.errors import RecordError
from fewshot_bench.figures import Ask
from fewshot_bench.figures.series import table_of
from fewshot_bench.figures.style import Floats
from fewshot_bench.results.compare import Run
from fewshot_bench.results.record.part import part_of
from fewshot_bench.results.stats.tests import Interval, student_interval

LEVEL = 0.95


@dataclass(frozen=True)
class Answers:
    """The answers to all queries of the test.

    Arguments:
        episode: numbers [E].
        classes: ids [E, way].
        counts: [E, way, way] of (true slot, predicted slot).
    """

    episode: Floats
    classes: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    @property
    def accuracy(self) -> Floats:
        """Of each class of each episode: [E, way]; NaN of a class without a query."""
        right, queries = np.diagonal(self.counts, axis1=1, axis2=2), self.counts.sum(2)
        return np.where(queries, right / np.maximum(queries, 1), np.nan)

    @property
    def overall(self) -> Floats:
        """Of all queries of each episode: [E]."""
        right = np.trace(self.counts, axis1=1, axis2=2)
        return right / np.maximum(self.counts.sum((1, 2)), 1)


def answers(run: Run) -> Answers:
    """From episodes.csv and confusion.csv.

    Raises:
        RecordError: they are missing, damaged or do not belong together.
    """
    way = run.record["task"]["way"]
    columns = [f"class_{slot}" for slot in range(way)]
    table = table_of(run, "episodes.csv", "episode", *columns)
    cells = table_of(run, "confusion.csv", "episode", "target", "predicted", "count")
    order = np.argsort(table["episode"])
    episode = table["episode"][order]
    classes = np.stack([table[name][order] for name in columns], axis=1).astype(np.int64)
    row = np.searchsorted(episode, cells["episode"])
    slots = [cells[name].astype(np.int64) for name in ("target", "predicted")]
    counts = np.zeros((len(episode), way, way), np.int64)
    known = row < len(episode)
    if not known.all() or (episode[row] != cells["episode"]).any() or max(map(max, slots)) >= way:
        raise RecordError("its confusion.csv and episodes.csv do not belong together")
    np.add.at(counts, (row, *slots), cells["count"].astype(np.int64))
    return Answers(episode, classes, counts)


def by_class(of: Answers) -> dict[int, Interval]:
    """Accuracy of each class id, with the Student interval over the episodes that hold it."""
    ids, scores = of.classes.ravel(), of.accuracy.ravel()
    ids, scores = ids[~np.isnan(scores)], scores[~np.isnan(scores)]
    order = np.argsort(ids, kind="stable")
    found, starts = np.unique(ids[order], return_index=True)
    parts = np.split(scores[order], starts[1:])
    return {int(c): student_interval(part, LEVEL) for c, part in zip(found, parts, strict=True)}


def by_family(classes: dict[int, Interval], families: Sequence[str]) -> dict[str, Interval]:
    """Mean accuracy of the classes of each family, with the Student interval over them."""
    scores: dict[str, list[float]] = {}
    for c, interval in classes.items():
        scores.setdefault(families[c], []).append(interval.mean)
    return {name: student_interval(values, LEVEL) for name, values in scores.items()}


def test_classes(run: Run) -> str:
    """What two runs have to agree in for their class ids to mean the same."""
    if digest := run.record.get("evaluated_digest"):
        return str(digest)
    options = run.record["config"]["dataset_options"]
    ours = sorted((n, v) for n, v in options.items() if not n.startswith("train_"))
    data = [run.record[name] for name in ("dataset", "dataset_digest", "split")]
    return repr((*data, part_of(run.record), ours))


def readable(runs: Sequence[Run], ask: Ask) -> list[tuple[Run, Answers]]:
    """The runs whose answers can be read and whose classes are those of the first such run."""
    kept: list[tuple[Run, Answers]] = []
    for run in runs:
        if kept and test_classes(run) != test_classes(kept[0][0]):
            ask.lacks(run, f"has other test classes than '{kept[0][0].folder.name}'")
            continue
        try:
            kept.append((run, answers(run)))
        except RecordError as error:
            ask.lacks(run, f"({error})")
    return kept
