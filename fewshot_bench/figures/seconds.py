"""Accuracy against the time that training took."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fewshot_bench.figures import Ask
from fewshot_bench.figures.series import (
    common_steps,
    devices,
    gather,
    over_seeds,
    span_words,
    table_of,
    tables,
)
from fewshot_bench.figures.style import (
    BAND,
    GRAY,
    PERCENT,
    Floats,
    caption,
    legend,
    look,
    panels,
    plain_ticks,
    whiskers,
    wide_range,
)
from fewshot_bench.results.compare import Run

MINUTES = 300.0  # seconds from which an axis in minutes is easier to read


def draw(runs: list[Run], ask: Ask) -> Figure | None:
    """Validation accuracy over the time of the training steps; test accuracy at its end."""
    kept = tables(gather(runs, ask), ask, curve)
    if not kept:
        return None
    figure, (axes,) = panels(1, height=3.0)
    totals = [v[1][-1] for _, values in kept for v in values]
    unit, name = (60.0, "min") if max(totals) >= MINUTES else (1.0, "s")
    handles = []
    for i, (series, values) in enumerate(kept):
        _, times = common_steps([(s, t) for s, t, _ in values])
        _, seen = common_steps([(s, a) for s, _, a in values])
        mean, low, high = (PERCENT * part for part in over_seeds(seen))
        at = np.mean(times, axis=0) / unit
        (line,) = axes.plot(at, mean, **look(i))
        handles.append(line)
        if series.seeds > 1:
            axes.fill_between(at, low, high, color=line.get_color(), alpha=BAND, linewidth=0)
        for run, (_, time, _) in zip(series.runs, values, strict=True):
            test = run.record["test"]
            ends = [np.nan if end is None else PERCENT * end for end in test["interval"]]
            whiskers(
                axes, [time[-1] / unit], [PERCENT * test["accuracy"]], *ends,
                color=line.get_color(), marker="*", markersize=8, zorder=5,
            )  # fmt: skip
    if wide_range([t[0] for _, values in kept for _, t, _ in values] + totals):
        axes.set_xscale("log")
        plain_ticks(axes.xaxis)
    axes.set_xlabel(f"time in training steps ({name})")
    axes.set_ylabel("accuracy (%)")
    star = Line2D([], [], color=GRAY, marker="*", markersize=8, linestyle="none")
    legend(figure, [*handles, star], [*(s.label for s, _ in kept), "test accuracy"])
    all_ = [series for series, _ in kept]
    level = f"{PERCENT * all_[0].runs[0].record['test']['level']:g}"
    on = devices(all_)
    caption(
        figure,
        "Lines: accuracy on the validation split. Stars: on the test split, of the weights that "
        f"validation chose, with the {level} % Student interval over test episodes.",
        span_words(all_, ""),
        "Time is that of the training steps alone, without validations.",
        f"Different devices, so times do not compare: {'; '.join(on)}." if len(on) > 1 else "",
    )
    return figure


def curve(run: Run) -> tuple[Floats, Floats, Floats]:
    """(step, seconds of training until then, validation accuracy) of each validation.

    Raises:
        RecordError: the run has none.
    """
    steps = table_of(run, "steps.csv", "step", "step_ms")
    seen = table_of(run, "validation.csv", "step", "accuracy")
    elapsed = np.nancumsum(steps["step_ms"]) / 1e3
    at = np.searchsorted(steps["step"], seen["step"], side="right") - 1
    return seen["step"], elapsed[np.maximum(at, 0)], seen["accuracy"]
