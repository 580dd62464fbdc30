"""Figures of what a method generates during training: ``episode`` and ``generator``."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewshot_bench.errors import RecordError
from fewshot_bench.figures import Request, style
from fewshot_bench.figures.series import read_all, run_names
from fewshot_bench.results.runs import Run
from fewshot_bench.results.stats import student_interval

FOLDER, REAL = "pictures", "support"  # in a run's folder; the key of the real images
QUALITY = "quality.jsonl"  # in that folder
HINT = "(fsb run METHOD --pictures, of a method that generates images)"
MOMENTS = 4  # of the training, shown in a row
GAP, SHADE = 2, 170  # pixels between images, and their gray
TITLES = {
    "precision": "precision (%)",
    "recall": "recall (%)",
    "distance": "distance to real images\n(a real image: 1)",
}
Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Pictures:
    """The pictures that a run saved.

    Arguments:
        support: real images [way, shot, C, H, W].
        generated: {name: [(step, images [way, k, C, H, W])]}, by step.
    """

    support: Images
    generated: dict[str, list[tuple[int, Images]]]


def episode(runs: list[Run], request: Request) -> Figure | None:
    """One row per run and name: the support set, then the images at moments of the training."""
    found = read_all(runs, request, _pictures)
    rows = [(run, name, own) for run, own in found for name in own.generated]
    if not rows:
        return None
    shown = [_moments(own.generated[name]) for _, name, own in rows]
    count = 1 + max(map(len, shown))
    shapes = [sheet(own.support).shape for _, _, own in rows]
    shapes += [sheet(own.generated[name][0][1]).shape for _, name, own in rows]
    tallest = max(height / width for height, width, *_ in shapes)
    figure = style.new_figure(len(rows) * (style.WIDTH / count * tallest + 0.2))
    grid = figure.subplots(len(rows), count, squeeze=False)
    labels = run_names([run for run, _, _ in rows])
    for axes, (_, name, own), moments, label in zip(grid, rows, shown, labels, strict=True):
        title = f"{label}: {name}" if len(own.generated) > 1 else label
        _show(axes[0], own.support, "real support set")
        axes[0].set_ylabel(style.folded(title, 24) if len(rows) > 1 else "one class per row")
        for one, (step, images) in zip(axes[1:], moments, strict=False):
            _show(one, images, f"step {step}" if step else "before training")
        for spare in axes[1 + len(moments) :]:
            spare.remove()
    names = " and ".join(dict.fromkeys(name for _, name, _ in rows))
    style.caption(
        figure,
        f"Left: the support set of a held-out task. Right: {names} for this task, from the same "
        "noise, after that many training steps.",
    )
    return figure


def _moments(generated: list[tuple[int, Images]]) -> list[tuple[int, Images]]:
    """At most ``MOMENTS`` of the images: the first, the last, and evenly between."""
    at = np.linspace(0, len(generated) - 1, min(MOMENTS, len(generated))).round().astype(int)
    return [generated[i] for i in at]


def _show(axes: Axes, images: Images, title: str) -> None:
    axes.imshow(sheet(images), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    axes.spines[:].set(visible=True, color=style.GRAY)


def sheet(images: Images) -> Images:
    """[rows, columns, C, H, W] as one picture [h, w] or [h, w, 3] with gaps."""
    rows, columns, channels, height, width = images.shape
    shape = (channels, rows * (height + GAP) - GAP, columns * (width + GAP) - GAP)
    pixels = np.full(shape, SHADE, np.uint8)
    for r, c in np.ndindex(rows, columns):
        top, left = r * (height + GAP), c * (width + GAP)
        pixels[:, top : top + height, left : left + width] = images[r, c]
    return pixels[0] if channels == 1 else pixels.transpose(1, 2, 0)


def _pictures(run: Run) -> Pictures:
    """Read the pictures of a run.

    Raises:
        RecordError: it saved none, or a file is damaged.
    """
    folder = run.folder / FOLDER
    files = sorted(folder.glob("step-*.npz"))
    if not files:
        raise RecordError(f"it saved no pictures {HINT}")
    generated: dict[str, list[tuple[int, Images]]] = {}
    try:
        with np.load(folder / "task.npz", allow_pickle=False) as task:
            support = task[REAL]
        for path in files:
            step = int(path.stem.removeprefix("step-"))
            with np.load(path, allow_pickle=False) as pictures:
                for name in pictures.files:
                    generated.setdefault(name, []).append((step, pictures[name]))
    except (OSError, ValueError, KeyError) as error:
        raise RecordError(f"its pictures are damaged ({error})") from error
    return Pictures(support, generated)


@dataclass(frozen=True)
class Quality:
    """One run's generator, by step.

    Arguments:
        steps: [n].
        tasks: {measure, or ``real_`` measure: [n, tasks]}.
    """

    steps: style.Floats
    tasks: dict[str, style.Floats]


def generator(runs: list[Run], request: Request) -> Figure | None:
    """A panel for each measure: generated images as a line, held-out real ones dashed."""
    read = read_all(runs, request, _quality)
    found = [(run, name, one) for run, own in read for name, one in own.items()]
    if not found:
        return None
    figure, axes = style.panels(3, 3)
    handles = [
        [_quality_line(panel, one, measure, i) for panel, measure in zip(axes, TITLES, strict=True)]
        for i, (_, _, one) in enumerate(found)
    ]
    for panel, title in zip(axes, TITLES.values(), strict=True):
        panel.set_ylabel(title)
        panel.set_xlabel("training step")
    style.legend(figure, [lines[-1] for lines in handles], run_names([run for run, _, _ in found]))
    kind = " and ".join(dict.fromkeys(name for _, name, _ in found))
    style.caption(
        figure,
        f"{kind[:1].upper()}{kind[1:]} of held-out tasks, in the space in which the method sees "
        "them after learning the task. Dashed: as many held-out real images of the same classes. "
        "Bands: 95 % Student intervals over tasks.",
    )
    return figure


def _quality_line(axes: Axes, quality: Quality, measure: str, i: int) -> object:
    """The generated images' mean with its interval, and the real images' mean."""
    scale = 1.0 if measure == "distance" else 100.0
    intervals = [student_interval(row) for row in scale * quality.tasks[measure]]
    mean = np.array([interval.mean for interval in intervals])
    half = np.array([interval.half_width or 0.0 for interval in intervals])
    (line,) = axes.plot(quality.steps, mean, **style.of_series(i))
    style.band(axes, quality.steps, mean - half, mean + half, line.get_color())
    if measure == "distance":
        axes.axhline(1.0, color=style.GRAY, linestyle="--", linewidth=1.0)
    else:
        real = scale * quality.tasks[f"real_{measure}"].mean(1)
        axes.plot(quality.steps, real, color=line.get_color(), linestyle="--", linewidth=1.0)
    return line


def _quality(run: Run) -> dict[str, Quality]:
    """The measures of a run, by the name of what is generated.

    Raises:
        RecordError: it has none, or the file is damaged.
    """
    path = run.folder / FOLDER / QUALITY
    measures = [*TITLES, "real_precision", "real_recall"]
    found = {}
    try:
        lines = [json.loads(text) for text in path.read_text("utf-8").splitlines()]
        for name in dict.fromkeys(str(line["name"]) for line in lines):
            own = [line for line in lines if line["name"] == name]
            columns = {
                column: np.array([line[column] for line in own], dtype=np.float64)
                for column in ("step", *measures)
            }
            steps = columns.pop("step")
            if any(values.ndim != 2 or values.shape[1] < 2 for values in columns.values()):
                raise ValueError("no numbers by task")
            found[name] = Quality(steps, columns)
    except FileNotFoundError as error:
        raise RecordError(f"it measured no pictures {HINT}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"'{path}' is damaged ({error})") from error
    return found
