"""Accuracy of each class and of each family of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewshot_bench.figures import Ask
from fewshot_bench.figures.answers import LEVEL, by_class, by_family, readable
from fewshot_bench.figures.real import Names, names_of
from fewshot_bench.figures.series import apart
from fewshot_bench.figures.style import PERCENT, WIDTH, caption, legend, look, whiskers
from fewshot_bench.results.compare import Run
from fewshot_bench.results.stats.tests import Interval

NAMED = 40  # classes that have room for their names
HARDEST = 5  # of more classes, that the caption names
ROW, SPREAD = 0.17, 0.5  # inches of a row; how much of it several runs take up
Scores = Sequence[dict[str, Interval]]  # of each run, by name


def draw(runs: list[Run], ask: Ask) -> Figure | None:
    """The classes sorted by accuracy; beside them the families, where the data have them."""
    kept = readable(runs, ask)
    if not kept:
        return None
    names = names_of(kept[0][0], ask)
    of_classes = [by_class(answers) for _, answers in kept]
    classes = [{_name(c, names): i for c, i in of.items()} for of in of_classes]
    families: Scores = []
    if names is not None and names.families is not None:
        families = [by_family(of, names.families) for of in of_classes]
    labels = apart([run for run, _ in kept])
    many = len(classes[0]) > NAMED
    rows = max(0 if many else len(classes[0]), len(families[0]) if families else 0)
    row = ROW * max(1.0, len(kept) / 2.5)
    tall = max(2.6 if many else 0.0, 0.7 + row * rows)
    figure = Figure(figsize=(WIDTH, tall), layout="constrained")
    left, *right = figure.subplots(1, 1 + bool(families), squeeze=False)[0]
    handles = profile(left, classes) if many else dots(left, classes)
    for axes in right:
        dots(axes, families)
        axes.set_title("families")
    left.set_title("classes" if right else "")
    if len(labels) > 1:
        legend(figure, handles, labels)
    level = f"{PERCENT * LEVEL:g} % Student interval"
    bare = many and len(kept) > 1
    hardest = sorted(classes[0], key=lambda name: (classes[0][name].mean, name))[:HARDEST]
    told = ", ".join(f"{n} ({PERCENT * classes[0][n].mean:.0f} %)" for n in hardest)
    caption(
        figure,
        "Classes: mean over the test episodes that hold the class"
        + (
            ", each run sorted on its own."
            if bare
            else f"; bars: {level} over these episodes, cut at 0 and "
            "100; no bar: one episode, or no variation."
        ),
        f"Families: mean over their classes; bars: {level} over these classes." if right else "",
        f"Hardest for {labels[0]}: {told}." if many else "",
    )
    return figure


def _name(c: int, names: Names | None) -> str:
    return f"class {c}" if names is None else names.classes[c]


def dots(axes: Axes, scores: Scores) -> list[Any]:
    """A row per name, the hardest of the first run on top; a marker per run."""
    first = scores[0]
    order = sorted(first, key=lambda name: (first[name].mean, name))
    shifts = np.linspace(-0.5, 0.5, len(scores)) * SPREAD if len(scores) > 1 else np.zeros(1)
    handles = []
    for i, (of, shift) in enumerate(zip(scores, shifts, strict=True)):
        shown = [name for name in order if name in of]
        x, low, high = ends([of[name] for name in shown])
        y = [order.index(name) + shift for name in shown]
        style = look(i) | {"linestyle": "none", "markersize": 3.5, "capsize": 1.5}
        handles.append(whiskers(axes, x, y, low, high, sideways=True, **style))
    axes.set_yticks(range(len(order)), order)
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("accuracy (%)")
    return handles


def profile(axes: Axes, scores: Scores) -> list[Any]:
    """Too many classes to name: each run's accuracies from the lowest to the highest."""
    handles = []
    for i, of in enumerate(scores):
        x, low, high = ends(sorted(of.values(), key=lambda interval: interval.mean))
        rank = np.arange(1, len(x) + 1)
        style = look(i)
        if len(scores) == 1:
            axes.vlines(rank, low, high, color=style["color"], alpha=0.3, lw=0.5)
        (line,) = axes.plot(rank, x, **style, markevery=max(1, len(x) // 12))
        handles.append(line)
    axes.set_xlabel("classes, from the hardest to the easiest")
    axes.set_ylabel("accuracy (%)")
    return handles


def ends(intervals: Sequence[Interval]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, low and high ends in percent, within 0 and 100; NaN where one score has no interval.

    Student's interval of a few scores reaches beyond what an accuracy can be.
    """
    rows = [(i.mean, i.low, i.high) for i in intervals]
    table = PERCENT * np.array([[np.nan if v is None else v for v in row] for row in rows])
    mean, low, high = table.T
    return mean, np.clip(low, 0, PERCENT), np.clip(high, 0, PERCENT)
