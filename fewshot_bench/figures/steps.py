"""How long a training step takes, and what it does in that time."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from fewshot_bench.errors import RecordError
from fewshot_bench.figures import Ask
from fewshot_bench.figures.series import apart, devices, gather, table_of, tables
from fewshot_bench.figures.style import (
    COLORS,
    HATCHES,
    PERCENT,
    WIDTH,
    Floats,
    caption,
    folded,
    plain_ticks,
    wide_range,
)
from fewshot_bench.results.compare import Run

ROW = 0.34  # inches
PHASES = {
    "sample_ms": "sampling",
    "forward_backward_ms": "forward and backward",
    "optimizer_ms": "optimizer",
}
SHADES = (COLORS[1], COLORS[0], COLORS[2])  # of the phases, light beside dark
Times = dict[str, Floats]


def draw(runs: list[Run], ask: Ask) -> Figure | None:
    """One row per run: a box of its step times, and the shares of its phases."""
    kept = tables(gather(runs, ask), ask, times)
    shown = [(run, t) for series, all_ in kept for run, t in zip(series.runs, all_, strict=True)]
    if not shown:
        return None
    names = [folded(name) for name in apart([run for run, _ in shown])]
    lines = sum(1 + name.count("\n") / 2 for name in names)
    figure = Figure(figsize=(WIDTH, 1.0 + ROW * lines), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    at = np.arange(len(names))
    left.boxplot(
        [t["step_ms"] for _, t in shown], positions=at, orientation="horizontal",
        whis=(5, 95), widths=0.55, showfliers=False, patch_artist=True, manage_ticks=False,
        boxprops={"facecolor": "#56B4E9"}, medianprops={"color": "black", "linewidth": 1.6},
    )  # fmt: skip
    for y, (_, t) in zip(at, shown, strict=True):
        median, end = np.quantile(t["step_ms"], (0.5, 0.95))
        left.annotate(
            f"{median:.0f}" if median >= 100 else f"{median:.3g}", (end, y), xytext=(5, 0),
            textcoords="offset points", va="center", fontsize=7,
        )  # fmt: skip
    if wide_range([value for _, t in shown for value in t["step_ms"]]):
        left.set_xscale("log")
        plain_ticks(left.xaxis)
    else:
        left.set_xlim(left=0)
    left.margins(x=0.12)
    left.set_xlabel("time of a training step (ms)")
    left.set_yticks(at, names)
    left.set_ylim(len(names) - 0.4, -0.7)
    done = np.zeros(len(names))
    for i, (column, name) in enumerate(PHASES.items()):
        share = np.array([shares(t)[column] for _, t in shown])
        right.barh(
            at, share, 0.55, done, label=name, color=SHADES[i], hatch=HATCHES[i],
            edgecolor="white", linewidth=0.6,
        )  # fmt: skip
        done = done + np.nan_to_num(share)
    right.set_xlabel("share of the step (%)")
    right.set_xlim(0, 100)
    for axes in (left, right):
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper right", ncols=3)
    on = devices([s for s, _ in kept])
    caption(
        figure,
        "Boxes: quartiles of the step time; number: its median; whiskers: 5 % to 95 %. Steps of "
        "the warm-up are left out. Bars: each phase's share of the time of all these steps.",
        f"{'Device' if len(on) == 1 else 'Different devices'}: {'; '.join(on)}.",
    )
    return figure


def times(run: Run) -> Times:
    """The step's and the phases' milliseconds of each step after the warm-up.

    Raises:
        RecordError: the run has none.
    """
    table = table_of(run, "steps.csv", "step_ms")
    columns = {n: table[n] for n in ("step_ms", *PHASES) if n in table}
    warm = run.record["timing"].get("warmup_steps") or 0
    columns = {n: ms[min(warm, len(ms) - 1) :] for n, ms in columns.items()}
    timed = np.isfinite(columns["step_ms"])
    if not timed.any():
        raise RecordError("its steps were not timed")
    return {n: ms[timed] for n, ms in columns.items()}


def shares(measured: Times) -> dict[str, float]:
    """Percent of the step's time in each phase, over the steps whose phases are known; else NaN."""
    columns = [n for n in PHASES if n in measured]
    if len(columns) < len(PHASES):
        return dict.fromkeys(PHASES, np.nan)
    known = np.isfinite(np.stack([measured[n] for n in columns])).all(0)
    total = measured["step_ms"][known].sum()
    if not total:
        return dict.fromkeys(PHASES, np.nan)
    return {n: PERCENT * float(measured[n][known].sum() / total) for n in columns}
