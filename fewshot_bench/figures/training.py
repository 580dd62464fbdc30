"""Figures of a training: ``learning``, ``time`` and ``steps``."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fewshot_bench.errors import RecordError
from fewshot_bench.figures import Request, series, style
from fewshot_bench.figures.series import table_of
from fewshot_bench.figures.style import Floats
from fewshot_bench.results.runs import Run

LOSS = "loss_"
WINDOWS = 50  # of the training, in each of which a loss is summarized
MINUTES = 300.0  # seconds from which an axis in minutes is easier to read
ROW = 0.34  # inches
# {column: (name, color, hatch)}; light beside dark
PHASES = {
    "sample_ms": ("sampling", style.COLORS[1], ""),
    "forward_backward_ms": ("forward and backward", style.COLORS[0], "////"),
    "optimizer_ms": ("optimizer", style.COLORS[2], "...."),
}
Table = dict[str, Floats]  # columns of a CSV file


def learning(runs: list[Run], request: Request) -> Figure:
    """Validation accuracy, and a panel for the loss of each player, against the step."""
    found = series.read_series(runs, request, _curves)
    tables = [steps for _, values in found for _, steps in values]
    players = list(dict.fromkeys(name for steps in tables for name in steps if LOSS in name))
    figure, axes = style.panels(1 + len(players))
    handles = []
    for i, (_, values) in enumerate(found):
        step, accuracies = series.common_steps([(v["step"], v["accuracy"]) for v, _ in values])
        handles.append(_accuracy(axes[0], step, accuracies, i))
        for panel, player in zip(axes[1:], players, strict=True):
            if player in values[0][1]:
                _loss(panel, [(steps["step"], steps[player]) for _, steps in values], i)
    axes[0].set_ylabel("validation accuracy (%)")
    for panel, player in zip(axes[1:], players, strict=True):
        name = player.removeprefix(LOSS)
        panel.set_ylabel("training loss" + (f" ({name})" if len(players) > 1 else ""))
        values_shown = np.concatenate([np.asarray(line.get_ydata()) for line in panel.lines])
        style.log_if_wide(panel, "y", values_shown, 10.0)
    for panel in axes:
        panel.set_xlabel("training step")
    shown = [one for one, _ in found]
    style.legend(figure, handles, [one.label for one in shown])
    single = (
        "One seed: the losses' band holds 80 % of a window's steps; the spread of a "
        "validation over its episodes is not recorded."
    )
    losses = f"Losses: medians over {WINDOWS} windows of the training."
    style.caption(figure, losses, series.range_text(shown, single))
    return figure


def _curves(run: Run) -> tuple[Table, Table]:
    """Columns of validation.csv and of steps.csv."""
    steps = table_of(run, "steps.csv", "step")
    return table_of(run, "validation.csv", "step", "accuracy"), steps


def _accuracy(axes: Axes, x: Floats, accuracies: list[Floats], i: int) -> Line2D:
    """One line; a band if there are several seeds."""
    seeds = np.stack(accuracies)
    (line,) = axes.plot(x, style.PERCENT * seeds.mean(0), **style.of_series(i))
    if len(accuracies) > 1:
        low, high = style.PERCENT * seeds.min(0), style.PERCENT * seeds.max(0)
        style.band(axes, x, low, high, line.get_color())
    return line


def _loss(axes: Axes, curves: list[tuple[Floats, Floats]], i: int) -> None:
    """A smoothed loss with its band: over the seeds, or over the steps of a window."""
    step, values = series.common_steps(curves)
    at, *parts = windows(step, *values)
    middle = np.array([part.mean() for part in at])
    medians = np.array([[np.median(part) for part in one] for one in parts])
    low, high = medians.min(0), medians.max(0)
    if len(curves) == 1:
        low, high = np.array([np.quantile(part, (0.1, 0.9)) for part in parts[0]]).T
    properties = style.of_series(i) | {"marker": ""}
    axes.plot(middle, medians.mean(0), **properties)
    style.band(axes, middle, low, high, properties["color"])


def windows(*columns: Floats, most: int = WINDOWS) -> list[list[Floats]]:
    """Columns of one length, each cut into at most ``most`` windows."""
    count = min(most, len(columns[0]))
    return [list(np.array_split(column, count)) for column in columns]


def time(runs: list[Run], request: Request) -> Figure:
    """Validation accuracy against the time of the training steps; test accuracy at its end."""
    found = series.read_series(runs, request, _timed_curve)
    figure, (axes,) = style.panels(1, height=3.0)
    seconds = [times for _, values in found for _, times, _ in values]
    unit, name = (60.0, "min") if max(s[-1] for s in seconds) >= MINUTES else (1.0, "s")
    handles = []
    for i, (one, values) in enumerate(found):
        _, times = series.common_steps([(step, elapsed) for step, elapsed, _ in values])
        _, accuracies = series.common_steps([(step, accuracy) for step, _, accuracy in values])
        line = _accuracy(axes, np.mean(times, axis=0) / unit, accuracies, i)
        handles.append(line)
        for run, (_, elapsed, _) in zip(one.runs, values, strict=True):
            test = run.record["test"]
            style.whiskers(
                axes, [elapsed[-1] / unit], [style.PERCENT * test["accuracy"]],
                *style.percent(*test["interval"]),
                color=line.get_color(), marker="*", markersize=8, zorder=5,
            )  # fmt: skip
    style.log_if_wide(axes, "x", [s[end] for s in seconds for end in (0, -1)])
    axes.set_xlabel(f"time in training steps ({name})")
    axes.set_ylabel("accuracy (%)")
    star = Line2D([], [], color=style.GRAY, marker="*", markersize=8, linestyle="none")
    shown = [one for one, _ in found]
    style.legend(figure, [*handles, star], [*(one.label for one in shown), "test accuracy"])
    level = f"{style.PERCENT * shown[0].runs[0].record['test']['level']:g}"
    devices = series.device_names(shown)
    different = f"Different devices, so times do not compare: {'; '.join(devices)}."
    style.caption(
        figure,
        "Lines: accuracy on the validation split. Stars: on the test split, of the weights that "
        f"validation chose, with the {level} % Student interval over test episodes.",
        series.range_text(shown),
        "Time is that of the training steps alone, without validations.",
        different if len(devices) > 1 else "",
    )
    return figure


def _timed_curve(run: Run) -> tuple[Floats, Floats, Floats]:
    """(step, seconds of training until then, accuracy) of each validation."""
    steps = table_of(run, "steps.csv", "step", "step_ms")
    validations = table_of(run, "validation.csv", "step", "accuracy")
    elapsed = np.nancumsum(steps["step_ms"]) / 1e3
    at = np.searchsorted(steps["step"], validations["step"], side="right") - 1
    return validations["step"], elapsed[np.maximum(at, 0)], validations["accuracy"]


def steps(runs: list[Run], request: Request) -> Figure:
    """One row per run: a box of its step times, and the shares of its phases."""
    found = series.read_series(runs, request, _times)
    shown = [one for one, _ in found]
    times = [columns for _, values in found for columns in values]
    names = series.run_names([run for one in shown for run in one.runs])
    names = [style.folded(name) for name in names]
    lines = sum(1 + name.count("\n") / 2 for name in names)
    figure = style.new_figure(1.0 + ROW * lines)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    rows = np.arange(len(names))
    left.boxplot(
        [t["step_ms"] for t in times], positions=rows, orientation="horizontal",
        whis=(5, 95), widths=0.55, showfliers=False, patch_artist=True, manage_ticks=False,
        boxprops={"facecolor": "#56B4E9"}, medianprops={"color": "black", "linewidth": 1.6},
    )  # fmt: skip
    for y, columns in zip(rows, times, strict=True):
        median, end = np.quantile(columns["step_ms"], (0.5, 0.95))
        left.annotate(
            f"{median:.0f}" if median >= 100 else f"{median:.3g}", (end, y), xytext=(5, 0),
            textcoords="offset points", va="center", fontsize=7,
        )  # fmt: skip
    if not style.log_if_wide(left, "x", [value for t in times for value in t["step_ms"]]):
        left.set_xlim(left=0)
    left.margins(x=0.12)
    left.set_xlabel("time of a training step (ms)")
    left.set_yticks(rows, names)
    left.set_ylim(len(names) - 0.4, -0.7)
    start = np.zeros(len(names))
    shares = np.array([_shares(columns) for columns in times])
    for share, (name, color, hatch) in zip(shares.T, PHASES.values(), strict=True):
        right.barh(
            rows, share, 0.55, start, label=name, color=color, hatch=hatch,
            edgecolor="white", linewidth=0.6,
        )  # fmt: skip
        start = start + np.nan_to_num(share)
    right.set_xlabel("share of the step (%)")
    right.set_xlim(0, 100)
    for axes in (left, right):
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper right", ncols=3)
    devices = series.device_names(shown)
    style.caption(
        figure,
        "Boxes: quartiles of the step time; number: its median; whiskers: 5 % to 95 %. Steps of "
        "the warm-up are left out. Bars: each phase's share of the time of all these steps.",
        f"{'Device' if len(devices) == 1 else 'Different devices'}: {'; '.join(devices)}.",
    )
    return figure


def _times(run: Run) -> Table:
    """Milliseconds of each step and its phases, after the warm-up."""
    table = table_of(run, "steps.csv", "step_ms")
    warm = min(run.record["timing"]["warmup_steps"] or 0, len(table["step_ms"]) - 1)
    columns = {name: table[name][warm:] for name in ("step_ms", *PHASES) if name in table}
    timed = np.isfinite(columns["step_ms"])
    if not timed.any():
        raise RecordError("its steps were not timed")
    return {name: ms[timed] for name, ms in columns.items()}


def _shares(times: Table) -> list[float]:
    """Percentage of each phase, over the steps whose phases are all known; else NaN."""
    if all(name in times for name in PHASES):
        known = np.isfinite(np.stack([times[name] for name in PHASES])).all(0)
        if total := times["step_ms"][known].sum():
            return [style.PERCENT * float(times[n][known].sum() / total) for n in PHASES]
    return [np.nan] * len(PHASES)
