"""Accuracy against shot and way."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewshot_bench.figures import Ask
from fewshot_bench.figures.series import Series, data_names, gather, setting, unseeded
from fewshot_bench.figures.style import PERCENT, caption, legend, look, panels, whiskers
from fewshot_bench.results.compare import Run
from fewshot_bench.results.labels import labels

BETWEEN, SPREAD = 0.06, 0.4  # steps of the axis between two points, and that all may take up
WAY, SHOT = 0, 1
AXES = ("classes of an episode (way)", "support images per class (shot)")
Place = tuple[int, int]  # way, shot
Point = tuple[float, float, float]  # accuracy, low and high end, in percent
Points = dict[str, dict[str, dict[Place, Point]]]  # {data set: {name: {place: point}}}


def draw(runs: list[Run], ask: Ask) -> Figure | None:
    """A panel against shot for each way, and one against way for each shot."""
    series = gather(runs, ask)
    points = gather_points(series)
    wanted = [(data, by, fixed) for data, named in points.items() for by, fixed in panels_of(named)]
    figure, axes = panels(len(wanted), height=2.6)
    names = list(dict.fromkeys(name for named in points.values() for name in named))
    handles: dict[str, Any] = {}
    for panel, (data, by, fixed) in zip(axes, wanted, strict=True):
        handles |= _panel(panel, points[data], names, by, fixed)
        panel.set_title(
            (f"{data}, " if len(points) > 1 else "") + f"{fixed}-{('way', 'shot')[1 - by]}"
        )
        panel.set_ylabel("test accuracy (%)")
    legend(figure, [handles[name] for name in names], names)
    level = f"{PERCENT * runs[0].record['test']['level']:g}"
    queries = sorted({run.record["task"]["query"] for run in runs})
    bars = f"Bars: {level} % Student interval over the test episodes"
    if any(one.seeds > 1 for one in series):
        bars += "; where a method has several seeds: from the lowest to the highest of them"
    differ = (
        f"Queries per class differ ({', '.join(map(str, queries))}), and with them the width of "
        "the intervals."
    )
    caption(figure, bars + ".", differ if len(queries) > 1 else "")
    return figure


def gather_points(series: list[Series]) -> Points:
    """The test accuracy of each series, by data set, name and setting.

    A method is one line over the settings, unless a setting has several series of it: then
    their names say what sets them apart.
    """
    groups: dict[tuple[str, Place], list[Series]] = {}
    for one, data in zip(series, data_names([one.runs[0] for one in series]), strict=True):
        groups.setdefault((data, setting(one.runs[0])), []).append(one)
    points: Points = {}
    for (data, place), members in groups.items():
        named = labels(unseeded(one.runs[0] for one in members))
        for one, name in zip(members, named, strict=True):
            points.setdefault(data, {}).setdefault(name, {})[place] = point(one)
    return points


def point(series: Series) -> Point:
    """The test accuracy with its interval; of several seeds the mean, lowest and highest."""
    tests = [run.record["test"] for run in series.runs]
    values = [PERCENT * test["accuracy"] for test in tests]
    if series.seeds > 1:
        return float(np.mean(values)), min(values), max(values)
    low, high = (np.nan if end is None else PERCENT * end for end in tests[0]["interval"])
    return values[0], low, high


def panels_of(named: dict[str, dict[Place, Point]]) -> list[tuple[int, int]]:
    """(what the axis shows, value of the other) of each panel.

    A panel has at least two values on its axis; a setting that is in no such panel gets one
    against shot.
    """
    places = sorted({place for of in named.values() for place in of})
    wanted, shown = [], set()
    for by in (SHOT, WAY):
        for fixed in sorted({place[1 - by] for place in places}):
            members = [place for place in places if place[1 - by] == fixed]
            if len(members) > 1:
                wanted.append((by, fixed))
                shown.update(members)
    return wanted + [(SHOT, place[WAY]) for place in places if place not in shown]


def _panel(
    axes: Axes, named: dict[str, dict[Place, Point]], names: list[str], by: int, fixed: int
) -> dict[str, Any]:
    """Draw one panel; {name: handle}."""
    here = {
        name: {p[by]: value for p, value in of.items() if p[1 - by] == fixed}
        for name, of in named.items()
    }
    here = {name: of for name, of in here.items() if of}
    values = sorted({value for of in here.values() for value in of})
    spread = min(SPREAD, BETWEEN * (len(here) - 1))
    shifts = np.linspace(-spread / 2, spread / 2, len(here))
    handles = {}
    for (name, of), shift in zip(here.items(), shifts, strict=True):
        x = [values.index(value) + shift for value in sorted(of)]
        y, low, high = np.array([of[value] for value in sorted(of)]).T
        handles[name] = whiskers(axes, x, y, low, high, **look(names.index(name)))
    axes.set_xticks(range(len(values)), [str(value) for value in values])
    axes.set_xlim(-0.5, len(values) - 0.5)
    axes.grid(False, axis="x")
    axes.set_xlabel(AXES[by])
    return handles
