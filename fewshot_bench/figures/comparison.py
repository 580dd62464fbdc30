"""Figures that compare runs: ``forest`` and ``settings``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewshot_bench.errors import ConfigError, RecordError, UnknownName
from fewshot_bench.figures import NothingToDraw, Request, note_trainings, series, style
from fewshot_bench.figures.series import Series
from fewshot_bench.results.comparison import Row, Table
from fewshot_bench.results.layout import labels
from fewshot_bench.results.runs import Run, Setting, age
from fewshot_bench.results.sentences import listed
from fewshot_bench.results.stats import Paired, paired_difference
from fewshot_bench.results.training import against_words

LEVEL = 0.95
ROW, MARGIN = 0.25, 0.3  # inches of a row, and around the rows of a panel
SHARED_SCALE = 4.0  # panels whose widest values differ by less share their axis
DAGGER = "\N{DOUBLE DAGGER}"  # after the name of a row that was trained differently
MINUS = "\N{MINUS SIGN}"
Rows = list[tuple[str, Paired]]


def forest(runs: list[Run], request: Request) -> Figure:
    """Paired differences from a baseline: a panel per setting, a row per run, a line at zero."""
    groups = paired_rows(runs, request)
    if not groups:
        raise NothingToDraw
    return _forest(groups, str(request.baseline), f"{style.PERCENT * LEVEL:g} % Student")


def forest_of_table(table: Table, rows: Sequence[Row], level: float) -> Figure:
    """The same of these rows of a table with differences, which may cover several training seeds.

    ``level``: of its intervals.
    """
    groups: dict[str, Rows] = {}
    for where, row, cell, difference in table.paired:
        if any(row is one for one in rows):
            base = difference.baseline.cells[table.settings.index(where)]
            name = _marked(row.title, cell.runs, base.runs if base else [])
            groups.setdefault(str(where), []).append((name, difference.paired))
    several = any(difference.seeds for *_, difference in table.paired)
    groups = {n: sorted(one, key=lambda row: -row[1].difference) for n, one in groups.items()}
    names = listed(dict.fromkeys(difference.baseline.name for *_, difference in table.paired))
    kind = f"{style.PERCENT * level:g} %" + ("" if several else " Student")
    figure = _forest(groups, names, kind, seeds=several)
    note_trainings(figure, [run for row in rows for run in row.runs])
    return figure


def _marked(name: str, runs: Sequence[Run], base: Sequence[Run]) -> str:
    return f"{name} {DAGGER}" if base and against_words(runs, base) else name


def _forest(groups: dict[str, Rows], baseline: str, kind: str, *, seeds: bool = False) -> Figure:
    heights, reach = [], []
    for rows in groups.values():  # names of more than two lines need more
        lines = max(style.folded(name).count("\n") for name, _ in rows)
        heights.append(MARGIN + ROW * len(rows) + 0.12 * max(0, lines - 1) * len(rows))
        reach.append(np.nanmax([np.abs(_in_points(paired)) for _, paired in rows]))
    figure = style.new_figure(0.4 + 0.25 * len(groups) + sum(heights))
    shared = max(reach) <= SHARED_SCALE * min(reach)
    grid = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights, sharex=shared)
    for axes, (heading, rows) in zip(grid[:, 0], groups.items(), strict=True):
        _forest_panel(axes, rows)
        axes.set_title(heading if len(groups) > 1 else "", loc="left", fontweight="bold")
    axes.set_xlabel(f"accuracy minus that of {baseline} (points)")
    covers = "It covers neither new classes nor new training seeds."
    if seeds:
        covers = "Where both have several training seeds, it covers new seeds and episodes."
    marked = any(name.endswith(DAGGER) for rows in groups.values() for name, _ in rows)
    style.caption(
        figure,
        f"Points: mean paired difference over the same test episodes; bars: its {kind} interval, "
        f"not corrected for the number of rows. {covers} Filled: the interval excludes zero.",
        "" if shared else "Each setting has its own scale.",
        f"{DAGGER} trained differently from {baseline}." if marked else "",
    )
    return figure


def _forest_panel(axes: Axes, rows: Rows) -> None:
    axes.axvline(0, color=style.GRAY, linewidth=0.9)
    for y, (_, paired) in enumerate(rows):
        d, low, high = _in_points(paired)
        style.whiskers(
            axes, [d], [y], low, high, sideways=True, color=style.COLORS[0], marker="o",
            markerfacecolor=style.COLORS[0] if low > 0 or high < 0 else "white",
        )  # fmt: skip
        text = f"{d:+.2f}" + (f" [{low:+.2f}, {high:+.2f}]" if np.isfinite(low) else "")
        axes.annotate(
            text.replace("-", MINUS), (1.02, y), xycoords=("axes fraction", "data"),
            va="center", annotation_clip=False,
        )  # fmt: skip
    style.name_rows(axes, [style.folded(name) for name, _ in rows])
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.08)


def _in_points(paired: Paired) -> tuple[float, ...]:
    """Difference, low and high end in points; NaN where one episode gives no interval."""
    return style.percent(paired.difference, paired.low, paired.high)


def paired_rows(runs: list[Run], request: Request) -> dict[str, Rows]:
    """{heading of a protocol: its runs, the best difference first}; the baseline must be known."""
    if request.baseline is None:
        raise ConfigError("forest compares with a run: give --baseline METHOD.")
    methods = {run.record["method"] for run in runs}
    if not any(request.baseline in _names(run) for run in runs):
        raise UnknownName("baseline", request.baseline, methods, "Give one of them, or a run's id.")
    groups: dict[str, list[Run]] = {}
    for run in runs:
        protocol = sorted(run.protocol().items(), key=str)
        same = repr((protocol, run.setting, run.record["episodes_digest"]))
        groups.setdefault(same, []).append(run)
    names = dict(zip(map(id, runs), series.data_names(runs), strict=True))
    found: dict[str, Rows] = {}
    for members in sorted(
        groups.values(), key=lambda m: (m[0].record["dataset"], m[0].setting[:2])
    ):
        rows = _against_baseline(members, request)
        setting = str(Setting(*members[0].setting[:2]))
        heading = ", ".join(filter(None, (names[id(members[0])], setting)))
        if heading in found:  # the same task, other episodes
            heading += f" (episodes {members[0].record['episodes_digest'][:6]})"
        if rows:
            found[heading] = sorted(rows, key=lambda row: -row[1].difference)
    return found


def _names(run: Run) -> tuple[str, ...]:
    """By which it can be given as the baseline."""
    return run.name, run.record["method"], run.record["id"]


def _against_baseline(members: list[Run], request: Request) -> Rows:
    """The runs of one protocol against its baseline: the lowest seed, of these the newest."""
    chosen = sorted((r for r in members if request.baseline in _names(r)), key=age, reverse=True)
    if not chosen:
        for run in members:
            request.leave_out(run, f"has no run of {request.baseline} on the same episodes")
        return []
    base = min(chosen, key=lambda run: run.record["seed"])
    try:
        reference = base.scores()
    except RecordError as error:
        request.leave_out(base, f"has no episodes to pair with ({error})")
        return []
    rows = []
    for run, name in zip(members, labels(members), strict=True):
        if run is base:
            continue
        try:
            episodes, scores = run.scores()
            if not np.array_equal(episodes, reference[0]):
                raise ValueError("its episodes differ from those of the baseline")
            paired = paired_difference(scores, reference[1], LEVEL, ranks=False)
            rows.append((_marked(name, [run], [base]), paired))
        except (RecordError, ValueError) as error:
            request.leave_out(run, f"cannot be paired ({error})")
    return rows


SPACING, SPREAD = 0.06, 0.4  # units of the axis between two series, and between the outermost
WAY, SHOT = 0, 1
AXES = ("classes of an episode (way)", "support images per class (shot)")
Place = tuple[int, int]  # way, shot
Point = tuple[float, ...]  # accuracy, low and high end, in style.percent
Points = dict[str, dict[str, dict[Place, Point]]]  # {data set: {name: {place: point}}}


def settings(runs: list[Run], request: Request) -> Figure:
    """Accuracy against shot for each way, and against way for each shot."""
    shown = series.gather(runs, request)
    points = _points(shown)
    wanted = [(data, by, fixed) for data, named in points.items() for by, fixed in panels_of(named)]
    figure, axes = style.panels(len(wanted), height=2.6)
    names = list(dict.fromkeys(name for named in points.values() for name in named))
    handles: dict[str, Any] = {}
    for panel, (data, by, fixed) in zip(axes, wanted, strict=True):
        handles |= _settings_panel(panel, points[data], names, by, fixed)
        title = f"{fixed}-{('way', 'shot')[1 - by]}"
        panel.set_title(f"{data}, {title}" if len(points) > 1 else title)
        panel.set_ylabel("test accuracy (%)")
    style.legend(figure, [handles[name] for name in names], names)
    level = f"{style.PERCENT * runs[0].record['test']['level']:g}"
    bars = f"Bars: {level} % Student interval over the test episodes"
    if any(len(one.runs) > 1 for one in shown):
        bars += "; of a method with several seeds: from the lowest to the highest of them"
    queries = ", ".join(map(str, sorted({run.record["task"]["query"] for run in runs})))
    differ = f"Queries per class differ ({queries}), and with them the width of the intervals."
    style.caption(figure, bars + ".", differ if "," in queries else "")
    return figure


def _points(shown: list[Series]) -> Points:
    """The test accuracy of each series, by data set, name and setting.

    If a setting has several series of a method, their names contain what differs between them.
    """
    groups: dict[tuple[str, Place], list[Series]] = {}
    for one, data in zip(shown, series.data_names([one.runs[0] for one in shown]), strict=True):
        groups.setdefault((data, one.runs[0].setting[:2]), []).append(one)
    points: Points = {}
    for (data, place), members in groups.items():
        named = labels(series.without_seed(one.runs[0] for one in members))
        for one, name in zip(members, named, strict=True):
            values = style.percent(*(run.record["test"]["accuracy"] for run in one.runs))
            ends = style.percent(*one.runs[0].record["test"]["interval"])
            if len(values) > 1:  # the mean of the seeds, the lowest and the highest
                ends = min(values), max(values)
            point = (float(np.mean(values)), *ends)
            points.setdefault(data, {}).setdefault(name, {})[place] = point
    return points


def panels_of(named: dict[str, dict[Place, Point]]) -> list[tuple[int, int]]:
    """(what the axis shows, value of the other) of each panel.

    A panel has at least two values on its axis; a setting that is in no such panel gets one
    against shot.
    """
    places = sorted({place for own in named.values() for place in own})
    wanted, shown = [], set()
    for by in (SHOT, WAY):
        for fixed in sorted({place[1 - by] for place in places}):
            members = [place for place in places if place[1 - by] == fixed]
            if len(members) > 1:
                wanted.append((by, fixed))
                shown.update(members)
    return wanted + [(SHOT, place[WAY]) for place in places if place not in shown]


def _settings_panel(
    axes: Axes, named: dict[str, dict[Place, Point]], names: list[str], by: int, fixed: int
) -> dict[str, Any]:
    """Draw one panel; {name: handle}."""
    here: dict[str, dict[int, Point]] = {}
    for name, own in named.items():
        for place, point in sorted(own.items()):
            if place[1 - by] == fixed:
                here.setdefault(name, {})[place[by]] = point
    values = sorted({value for own in here.values() for value in own})
    spread = min(SPREAD, SPACING * (len(here) - 1))
    shifts = np.linspace(-spread / 2, spread / 2, len(here))
    handles = {}
    for (name, points), shift in zip(here.items(), shifts, strict=True):
        x = [values.index(value) + shift for value in points]
        y, low, high = np.array(list(points.values())).T
        handles[name] = style.whiskers(axes, x, y, low, high, **style.of_series(names.index(name)))
    axes.set_xticks(range(len(values)), [str(value) for value in values])
    axes.set_xlim(-0.5, len(values) - 0.5)
    axes.grid(False, axis="x")
    axes.set_xlabel(AXES[by])
    return handles
