"""Learning curves."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewshot_bench.figures import Ask
from fewshot_bench.figures.series import (
    Series,
    common_steps,
    gather,
    over_seeds,
    span_words,
    stretches,
    table_of,
    tables,
)
from fewshot_bench.figures.style import (
    BAND,
    PERCENT,
    Floats,
    caption,
    legend,
    look,
    panels,
    plain_ticks,
    wide_range,
)
from fewshot_bench.results.compare import Run

LOSS = "loss_"
Curves = tuple[tuple[Floats, Floats], dict[str, Floats]]  # validation (step, accuracy), steps.csv


def draw(runs: list[Run], ask: Ask) -> Figure | None:
    """Validation accuracy, and a panel for the loss of each player, against the step."""
    kept = tables(gather(runs, ask), ask, curves)
    if not kept:
        return None
    players = list(dict.fromkeys(n for _, all_ in kept for _, c in all_ for n in c if LOSS in n))
    figure, axes = panels(1 + len(players), sharex=False)
    handles = []
    for i, (series, values) in enumerate(kept):
        line = validation(axes[0], series, [v for v, _ in values], i)
        for panel, player in zip(axes[1:], players, strict=True):
            if player in values[0][1]:
                losses(panel, series, [(c["step"], c[player]) for _, c in values], i)
        handles.append(line)
    axes[0].set_ylabel("validation accuracy (%)")
    for panel, player in zip(axes[1:], players, strict=True):
        name = player.removeprefix(LOSS)
        panel.set_ylabel("training loss" + (f" ({name})" if len(players) > 1 else ""))
        if wide_range(np.concatenate([np.asarray(line.get_ydata()) for line in panel.lines]), 10.0):
            panel.set_yscale("log")
            plain_ticks(panel.yaxis)
    for panel in axes:
        panel.set_xlabel("training step")
    legend(figure, handles, [series.label for series, _ in kept])
    caption(
        figure,
        "Losses: medians over 50 stretches of the training.",
        span_words(
            [s for s, _ in kept],
            "One seed: the losses' band holds 80 % of a stretch's steps; the spread of a "
            "validation over its episodes is not recorded.",
        ),
    )
    return figure


def curves(run: Run) -> Curves:
    """Validation accuracy by step, and the columns of steps.csv.

    Raises:
        RecordError: the run has none.
    """
    steps = table_of(run, "steps.csv", "step")
    seen = table_of(run, "validation.csv", "step", "accuracy")
    return (seen["step"], seen["accuracy"]), steps


def validation(axes: Axes, series: Series, seen: list[tuple[Floats, Floats]], i: int) -> object:
    """One line; a band where there are several seeds."""
    step, values = common_steps(seen)
    mean, low, high = over_seeds(values)
    (line,) = axes.plot(step, PERCENT * mean, **look(i))
    if series.seeds > 1:
        axes.fill_between(
            step, PERCENT * low, PERCENT * high, color=line.get_color(), alpha=BAND, linewidth=0
        )
    return line


def losses(axes: Axes, series: Series, seen: list[tuple[Floats, Floats]], i: int) -> None:
    """A smoothed loss with its band: of the seeds, or of the steps of a stretch."""
    step, values = common_steps(seen)
    at, *parts = stretches(step, *values)
    middle = np.array([part.mean() for part in at])
    medians = [np.array([np.median(part) for part in one]) for one in parts]
    mean, low, high = over_seeds(medians)
    if series.seeds == 1:
        low, high = (np.array([np.quantile(p, q) for p in parts[0]]) for q in (0.1, 0.9))
    style = look(i) | {"marker": ""}
    axes.plot(middle, mean, **style)
    axes.fill_between(middle, low, high, color=style["color"], alpha=BAND, linewidth=0)
