"""Figures of answers by class: ``classes`` and ``confusion``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewshot_bench.errors import ConfigError, RecordError
from fewshot_bench.figures import Request, style
from fewshot_bench.figures.series import read_all, run_names, table_of
from fewshot_bench.results.record import CLASSES, read_classes, read_table
from fewshot_bench.results.runs import Run
from fewshot_bench.results.stats import Interval, student_interval

LEVEL = 0.95
NAMED = 40  # classes that have room for their names
HARDEST = 5  # of more classes, named in the caption
ROW, SPREAD = 0.17, 0.5  # inches of a row; the part of it that several runs take
SMALL = 8  # classes up to which two confusion tables fit side by side
Scores = Sequence[dict[str, Interval]]  # of each run, by name


@dataclass(frozen=True)
class Answers:
    """The answers to all queries of the test."""

    episode: style.Floats  # numbers [E]
    classes: npt.NDArray[np.int64]  # ids [E, way]
    counts: npt.NDArray[np.int64]  # [E, way, way] of (true slot, predicted slot)

    @property
    def accuracy(self) -> style.Floats:
        """Of each class of each episode: [E, way]; NaN of a class without a query."""
        right, queries = np.diagonal(self.counts, axis1=1, axis2=2), self.counts.sum(2)
        return np.where(queries, right / np.maximum(queries, 1), np.nan)

    @property
    def overall(self) -> style.Floats:
        """Of all queries of each episode: [E]."""
        right = np.trace(self.counts, axis1=1, axis2=2)
        return right / np.maximum(self.counts.sum((1, 2)), 1)

    def row(self, episode: int | None) -> int:
        """The row of an episode (ConfigError if there is none); None: of the (first) hardest."""
        if episode is None:
            return int(self.overall.argmin())
        if episode not in self.episode:
            raise ConfigError(
                f"--episode {episode}: expected one of the first run's episodes, "
                f"{int(self.episode[0])} to {int(self.episode[-1])}."
            )
        return int(np.flatnonzero(self.episode == episode)[0])


def answers(run: Run) -> Answers:
    """The answers in episodes.csv and confusion.csv; RecordError if they do not fit together."""
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


def _readable(runs: Sequence[Run], request: Request) -> list[tuple[Run, Answers]]:
    """The runs with readable answers and the same test classes as the first such run."""
    found = read_all(runs, request, answers)
    first = found[0][0]
    content = first.record["evaluated_digest"]
    others = [run for run, _ in found if run.record["evaluated_digest"] != content]
    for run in others:
        request.leave_out(run, f"has other test classes than '{first.folder.name}'")
    return [(run, own) for run, own in found if run not in others]


class Names(NamedTuple):
    """Names of the classes of a split, by class id; of their families if there are several."""

    classes: tuple[str, ...]
    families: tuple[str, ...] | None


def names_of(run: Run, request: Request) -> Names | None:
    """The names that the run recorded; None where they are missing or damaged."""
    try:
        classes = read_classes(run.folder, run.record["part"])
        columns = [f"class_{slot}" for slot in range(run.record["task"]["way"])]
        for ids in read_table(run.folder / "episodes.csv", columns).values():
            if not ((ids >= 0) & (ids < len(classes))).all():
                path = run.folder / CLASSES
                raise RecordError(f"'{path}' does not name all classes of the episodes.")
    except RecordError as error:
        request.left_out.append(f"names of the classes, shown by their ids: {error}")
        return None
    families = tuple(c.family for c in classes)
    return Names(tuple(c.name for c in classes), families if len(set(families)) > 1 else None)


def _class_names(names: Names | None, ids: Sequence[int]) -> list[str]:
    return [f"class {c}" if names is None else names.classes[c] for c in ids]


def classes(runs: list[Run], request: Request) -> Figure:
    """The classes sorted by accuracy; beside them the families, where the data have them."""
    found = _readable(runs, request)
    names = names_of(found[0][0], request)
    by_id = [_by_class(own) for _, own in found]
    scores = [dict(zip(_class_names(names, list(own)), own.values(), strict=True)) for own in by_id]
    of_family = names.families if names is not None else None
    families = [_by_family(own, of_family) for own in by_id if of_family]
    labels = run_names([run for run, _ in found])
    many = len(scores[0]) > NAMED
    rows = max(0 if many else len(scores[0]), len(families[0]) if families else 0)
    height = max(2.6 if many else 0.0, 0.7 + ROW * max(1.0, len(found) / 2.5) * rows)
    figure = style.new_figure(height)
    left, *right = figure.subplots(1, 1 + bool(families), squeeze=False)[0]
    handles = _profile(left, scores) if many else _dots(left, scores)
    for axes in right:
        _dots(axes, families)
        axes.set_title("families")
    left.set_title("classes" if right else "")
    if len(labels) > 1:
        style.legend(figure, handles, labels)
    level = f"{style.PERCENT * LEVEL:g} % Student interval"
    hardest = [f"{n} ({style.PERCENT * scores[0][n].mean:.0f} %)" for n in _sorted(scores[0])]
    listed = ", ".join(hardest[:HARDEST])
    how = f"; bars: {level} over these episodes, cut at 0 and 100; no bar: one episode, or no"
    how = ", each run sorted separately." if many and len(found) > 1 else f"{how} variation."
    style.caption(
        figure,
        f"Classes: mean over the test episodes with the class{how}",
        f"Families: mean over their classes; bars: {level} over these classes." if right else "",
        f"Hardest for {labels[0]}: {listed}." if many else "",
    )
    return figure


def _sorted(scores: dict[str, Interval]) -> list[str]:
    return sorted(scores, key=lambda name: (scores[name].mean, name))


def _by_class(own: Answers) -> dict[int, Interval]:
    """Accuracy of each class id, with the Student interval over its episodes."""
    ids, scores = own.classes.ravel(), own.accuracy.ravel()
    answered = ~np.isnan(scores)
    order = np.argsort(ids[answered], kind="stable")
    found, starts = np.unique(ids[answered][order], return_index=True)
    parts = np.split(scores[answered][order], starts[1:])
    return {int(c): student_interval(part, LEVEL) for c, part in zip(found, parts, strict=True)}


def _by_family(by_class: dict[int, Interval], families: Sequence[str]) -> dict[str, Interval]:
    """Mean accuracy of the classes of each family, with the Student interval over them."""
    scores: dict[str, list[float]] = {}
    for c, interval in by_class.items():
        scores.setdefault(families[c], []).append(interval.mean)
    return {name: student_interval(values, LEVEL) for name, values in scores.items()}


def _dots(axes: Axes, scores: Scores) -> list[Any]:
    """A row per name, the hardest of the first run on top; a marker per run."""
    order = _sorted(scores[0])
    shifts = np.linspace(-0.5, 0.5, len(scores)) * SPREAD if len(scores) > 1 else np.zeros(1)
    handles = []
    for i, (own, shift) in enumerate(zip(scores, shifts, strict=True)):
        shown = [name for name in order if name in own]
        x, low, high = _ends([own[name] for name in shown])
        y = [order.index(name) + shift for name in shown]
        properties = style.of_series(i) | {"linestyle": "none", "markersize": 3.5, "capsize": 1.5}
        handles.append(style.whiskers(axes, x, y, low, high, sideways=True, **properties))
    style.name_rows(axes, order)
    axes.set_xlabel("accuracy (%)")
    return handles


def _profile(axes: Axes, scores: Scores) -> list[Any]:
    """Too many classes to name: each run's accuracies from the lowest to the highest."""
    handles = []
    for i, own in enumerate(scores):
        x, low, high = _ends(sorted(own.values(), key=lambda interval: interval.mean))
        rank = np.arange(1, len(x) + 1)
        properties = style.of_series(i)
        if len(scores) == 1:
            axes.vlines(rank, low, high, color=properties["color"], alpha=0.3, lw=0.5)
        handles += axes.plot(rank, x, **properties, markevery=max(1, len(x) // 12))
    axes.set_xlabel("classes, from the hardest to the easiest")
    axes.set_ylabel("accuracy (%)")
    return handles


def _ends(intervals: Sequence[Interval]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, low and high ends in percent; NaN where one score has no interval.

    Cut at 0 and 100, because Student's interval of a few scores reaches beyond any accuracy.
    """
    mean, low, high = np.array([style.percent(i.mean, i.low, i.high) for i in intervals]).T
    return mean, np.clip(low, 0, style.PERCENT), np.clip(high, 0, style.PERCENT)


def confusion(runs: list[Run], request: Request) -> Figure:
    """A table of counts for each run with the episode."""
    found = _readable(runs, request)
    first, reference = found[0]
    row = reference.row(request.episode)
    shown = []
    for run, own in found:
        if run.record["episodes_digest"] == first.record["episodes_digest"]:
            shown.append((run, own.counts[row]))
        else:
            request.leave_out(run, f"has other episodes than '{first.folder.name}'")
    names = _class_names(names_of(first, request), reference.classes[row].tolist())
    way = len(names)
    columns = 2 if len(shown) > 1 and way <= SMALL else 1
    rows = -(-len(shown) // columns)
    side = min(style.WIDTH / columns, 1.6 + 0.32 * way)
    figure = style.new_figure(rows * side, columns * side + 0.6)
    grid = style.grid(figure, rows, columns, len(shown), sharey=True)
    top = int(max(counts.sum(1).max() for _, counts in shown))
    titles = run_names([run for run, _ in shown])
    for axes, (_, counts), title in zip(grid, shown, titles, strict=True):
        axes.imshow(counts, cmap="Blues", vmin=0, vmax=top)
        for (i, j), count in np.ndenumerate(counts):
            if count:
                shade = "white" if count > top / 2 else "black"
                axes.text(j, i, str(count), ha="center", va="center", color=shade, fontsize=7)
        axes.set_xticks(range(way), names, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(way), names)
        axes.tick_params(length=0)
        axes.set_xlabel("predicted class")
        right = style.PERCENT * np.trace(counts) / counts.sum()
        style.frame(axes, f"{style.folded(title)}: {right:.1f} %")
    for axes in grid[::columns]:
        axes.set_ylabel("true class")
    why = "" if request.episode is not None else f", the hardest of {run_names([first])[0]}"
    number = int(reference.episode[row])
    style.caption(figure, f"Test episode {number}{why}: numbers are queries; empty cells are zero.")
    return figure
