"""Forest plot: every run against a baseline on the same episodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewshot_bench.errors import ConfigError, RecordError, UnknownName
from fewshot_bench.figures import Ask, note_trainings
from fewshot_bench.figures.series import data_names, in_words, setting
from fewshot_bench.figures.style import COLORS, GRAY, PERCENT, WIDTH, caption, folded, whiskers
from fewshot_bench.results.compare import Run
from fewshot_bench.results.comparison import Row, Table
from fewshot_bench.results.labels import labels
from fewshot_bench.results.runs import age
from fewshot_bench.results.sentences import listed
from fewshot_bench.results.stats.tests import Paired, paired_difference
from fewshot_bench.results.training import against_words

LEVEL = 0.95
ROW = 0.25  # inches of a row
AROUND = 0.3  # of what is around the rows of a setting
ONE_SCALE = 4.0  # settings whose differences are this much alike share their axis
OTHERWISE = "\N{DOUBLE DAGGER}"  # behind the name of a row that was not trained as the baseline
Rows = list[tuple[str, Paired]]


def draw(runs: list[Run], ask: Ask) -> Figure | None:
    """A panel for each setting, a row for each run, and a line at zero."""
    groups = paired_rows(runs, ask)
    return _picture(groups, str(ask.baseline), f"{PERCENT * LEVEL:g} % Student") if groups else None


def draw_table(table: Table, rows: Sequence[Row], level: float) -> Figure:
    """The same from the differences of a table, which may be over several training seeds.

    Arguments:
        table: with differences.
        rows: those of its rows that are shown.
        level: of its intervals.
    """
    groups: dict[str, Rows] = {}
    for where, row, cell, difference in table.paired:
        if any(row is one for one in rows):
            base = difference.baseline.cells[table.settings.index(where)]
            other = base is not None and against_words(cell.runs, base.runs)
            name = f"{row.title} {OTHERWISE}" if other else row.title
            groups.setdefault(str(where), []).append((name, difference.paired))
    several = any(difference.seeds for *_, difference in table.paired)
    kind = f"{PERCENT * level:g} %" + ("" if several else " Student")
    ordered = {name: sorted(one, key=lambda r: -r[1].difference) for name, one in groups.items()}
    names = listed(dict.fromkeys(difference.baseline.name for *_, difference in table.paired))
    figure = _picture(ordered, names, kind, seeds=several)
    note_trainings(figure, [run for row in rows for run in row.runs])
    return figure


def _picture(groups: dict[str, Rows], baseline: str, kind: str, *, seeds: bool = False) -> Figure:
    heights = [AROUND + ROW * len(rows) + folds(rows) for rows in groups.values()]
    figure = Figure(figsize=(WIDTH, 0.4 + 0.25 * len(groups) + sum(heights)), layout="constrained")
    reach = [
        max(abs(end) for _, paired in rows for end in points(paired) if np.isfinite(end))
        for rows in groups.values()
    ]
    alike = max(reach) <= ONE_SCALE * min(reach)
    grid = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights, sharex=alike)
    for axes, (heading, rows) in zip(grid[:, 0], groups.items(), strict=True):
        _panel(axes, rows)
        axes.set_title(heading if len(groups) > 1 else "", loc="left", fontweight="bold")
    axes.set_xlabel(f"accuracy minus that of {baseline} (points)")
    covers = (
        "Where both have several training seeds, it covers new seeds and episodes."
        if seeds
        else "It covers neither new classes nor new training seeds."
    )
    caption(
        figure,
        f"Points: mean paired difference over the same test episodes; bars: its {kind} interval, "
        f"not corrected for the number of rows. {covers} Filled: the interval leaves out zero.",
        "" if alike else "Each setting has its own scale.",
        f"{OTHERWISE} trained otherwise than {baseline}."
        if any(name.endswith(OTHERWISE) for rows in groups.values() for name, _ in rows)
        else "",
    )
    return figure


def folds(rows: Rows) -> float:
    """Inches for names that take more than two lines."""
    most = max(folded(name).count("\n") for name, _ in rows)
    return 0.12 * max(0, most - 1) * len(rows)


def _panel(axes: Axes, rows: Rows) -> None:
    axes.axvline(0, color=GRAY, linewidth=0.9)
    for y, (_, paired) in enumerate(rows):
        d, low, high = points(paired)
        sure = low > 0 or high < 0
        whiskers(
            axes, [d], [y], low, high, sideways=True, color=COLORS[0], marker="o",
            markerfacecolor=COLORS[0] if sure else "white",
        )  # fmt: skip
        told = f"{d:+.2f}" + (f" [{low:+.2f}, {high:+.2f}]" if np.isfinite(low) else "")
        axes.annotate(
            told.replace("-", "\N{MINUS SIGN}"),
            (1.02, y),
            xycoords=("axes fraction", "data"),
            va="center",
            annotation_clip=False,
        )
    axes.set_yticks(range(len(rows)), [folded(name) for name, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.08)


def points(paired: Paired) -> tuple[float, float, float]:
    """Difference, low and high end in points; NaN where one episode gives no interval."""
    values = (paired.difference, paired.low, paired.high)
    d, low, high = (np.nan if v is None else PERCENT * v for v in values)
    return d, low, high


def paired_rows(runs: list[Run], ask: Ask) -> dict[str, Rows]:
    """{heading of a protocol: its runs, the best difference first}.

    Raises:
        ConfigError: no baseline was asked for.
        UnknownName: no run is the baseline.
    """
    if ask.baseline is None:
        raise ConfigError("forest compares with a run: give --baseline METHOD.")
    methods = {run.record["method"] for run in runs}
    if ask.baseline not in methods | {run.name for run in runs} | {
        run.record["id"] for run in runs
    }:
        raise UnknownName("baseline", ask.baseline, methods, "Give one of them, or a run's id.")
    groups: dict[str, list[Run]] = {}
    for run in runs:
        protocol = sorted(run.protocol().items(), key=str)
        same = repr((protocol, run.setting, run.record["episodes_digest"]))
        groups.setdefault(same, []).append(run)
    names = {id(run): name for run, name in zip(runs, data_names(runs), strict=True)}
    found: dict[str, Rows] = {}
    for members in sorted(groups.values(), key=lambda m: (m[0].record["dataset"], setting(m[0]))):
        rows = _against_baseline(members, ask)
        heading = ", ".join(filter(None, (names[id(members[0])], in_words(members[0]))))
        if heading in found:  # the same task, other episodes
            heading += f" (episodes {members[0].record['episodes_digest'][:6]})"
        if rows:
            found[heading] = sorted(rows, key=lambda row: -row[1].difference)
    return found


def _against_baseline(members: list[Run], ask: Ask) -> Rows:
    """The runs of one protocol against its baseline: the lowest seed, the newest of these."""
    chosen = [r for r in members if ask.baseline in (r.name, r.record["method"], r.record["id"])]
    if not chosen:
        for run in members:
            ask.lacks(run, f"has no run of {ask.baseline} on the same episodes beside it")
        return []
    chosen.sort(key=age, reverse=True)
    base = min(chosen, key=lambda run: run.record["seed"])
    try:
        reference = base.scores()
    except RecordError as error:
        ask.lacks(base, f"has no episodes to pair with ({error})")
        return []
    rows = []
    for run, name in zip(members, labels(members), strict=True):
        if run is base:
            continue
        try:
            episodes, scores = run.scores()
            if not np.array_equal(episodes, reference[0]):
                raise ValueError("it has other episodes than the baseline")
            marked = f"{name} {OTHERWISE}" if against_words([run], [base]) else name
            rows.append((marked, paired_difference(scores, reference[1], LEVEL, ranks=False)))
        except (RecordError, ValueError) as error:
            ask.lacks(run, f"cannot be paired ({error})")
    return rows
