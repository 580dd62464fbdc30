"""How good a generator is over training: precision, recall and distance beside real images."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewshot_bench.errors import RecordError
from fewshot_bench.figures import Ask
from fewshot_bench.figures.pictures import FOLDER
from fewshot_bench.figures.series import apart
from fewshot_bench.figures.style import BAND, GRAY, Floats, caption, legend, look, panels
from fewshot_bench.results.compare import Run
from fewshot_bench.results.stats.tests import student_interval

JUDGED = "quality.jsonl"  # in the folder of a run's pictures
TITLES = {
    "precision": "precision (%)",
    "recall": "recall (%)",
    "distance": "distance to real images\n(a real image: 1)",
}


@dataclass(frozen=True)
class Judged:
    """One run's generator, by step.

    Arguments:
        steps: [n].
        tasks: {measure, or ``real_`` measure: [n, tasks]}.
    """

    steps: Floats
    tasks: dict[str, Floats]


def draw(runs: list[Run], ask: Ask) -> Figure | None:
    """A panel for each measure: drawn images as a line, held-out real ones dashed."""
    found: list[tuple[Run, str, Judged]] = []
    for run in runs:
        try:
            found += [(run, name, one) for name, one in read(run).items()]
        except RecordError as error:
            ask.lacks(run, f"({error})")
    if not found:
        return None
    figure, axes = panels(3, 3)
    labels = apart([run for run, _, _ in found])
    handles = []
    for i, (_, _, judged) in enumerate(found):
        for panel, measure in zip(axes, TITLES, strict=True):
            handle = line(panel, judged, measure, i)
        handles.append(handle)
    for panel, title in zip(axes, TITLES.values(), strict=True):
        panel.set_ylabel(title)
        panel.set_xlabel("training step")
    legend(figure, handles, labels)
    kind = " and ".join(dict.fromkeys(name for _, name, _ in found))
    caption(
        figure,
        f"{kind[:1].upper()}{kind[1:]} of tasks that are never trained on, in the space in which "
        "the method sees them after learning the task. Dashed: as many held-out real images of "
        "the same classes. Bands: 95 % Student intervals over tasks.",
    )
    return figure


def line(axes: Axes, judged: Judged, measure: str, i: int) -> object:
    """The drawn images' mean with its interval, and the real images' mean."""
    scale = 1.0 if measure == "distance" else 100.0
    values = scale * judged.tasks[measure]
    mean, half = over_tasks(values)
    (handle,) = axes.plot(judged.steps, mean, **look(i))
    axes.fill_between(
        judged.steps, mean - half, mean + half, color=handle.get_color(), alpha=BAND, linewidth=0
    )
    if measure == "distance":
        axes.axhline(1.0, color=GRAY, linestyle="--", linewidth=1.0)
    else:
        real = scale * judged.tasks[f"real_{measure}"].mean(1)
        axes.plot(judged.steps, real, color=handle.get_color(), linestyle="--", linewidth=1.0)
    return handle


def over_tasks(values: Floats) -> tuple[Floats, Floats]:
    """Mean and half width [n] of values [n, tasks]."""
    each = [student_interval(row) for row in values]
    return np.array([e.mean for e in each]), np.array([e.half_width or 0.0 for e in each])


def read(run: Run) -> dict[str, Judged]:
    """What a run's file says, by the name of what was drawn.

    Raises:
        RecordError: it has none, or it is damaged.
    """
    path = run.folder / FOLDER / JUDGED
    try:
        lines = [json.loads(text) for text in path.read_text("utf-8").splitlines()]
        names = dict.fromkeys(str(one["name"]) for one in lines)
        return {name: _judged([one for one in lines if one["name"] == name]) for name in names}
    except FileNotFoundError as error:
        raise RecordError(
            "it judged no pictures (fsb run METHOD --pictures, of a method that draws)"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"'{path}' is damaged ({error})") from error


def _judged(lines: list[dict[str, object]]) -> Judged:
    def column(name: str) -> Floats:
        return np.array([one[name] for one in lines], dtype=np.float64)

    measures = [*TITLES, "real_precision", "real_recall"]
    tasks = {name: column(name) for name in measures}
    if any(values.ndim != 2 or values.shape[1] < 2 for values in tasks.values()):
        raise ValueError("no numbers by task")
    return Judged(column("step"), tasks)
