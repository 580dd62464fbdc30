"""Figures of what a method generates during training: ``episode`` and ``generator``."""

import json
from typing import Any

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
Generated = list[tuple[int, Images]]  # (step, images [way, k, C, H, W]), by step


def episode(runs: list[Run], request: Request) -> Figure:
    """One row per run and name: the support set, then the images at moments of the training."""
    rows = [
        (run, name, support, own, len(generated) > 1)
        for run, (support, generated) in read_all(runs, request, _pictures)
        for name, own in generated.items()
    ]
    count = 1 + max(min(MOMENTS, len(own)) for *_, own, _ in rows)
    shapes = [sheet(images).shape for *_, real, own, _ in rows for images in (real, own[0][1])]
    tallest = max(height / width for height, width, *_ in shapes)
    figure = style.new_figure(len(rows) * (style.WIDTH / count * tallest + 0.2))
    grid = figure.subplots(len(rows), count, squeeze=False)
    labels = run_names([run for run, *_ in rows])
    for axes, (_, name, support, own, several), label in zip(grid, rows, labels, strict=True):
        # The first, the last, and evenly between.
        at = np.linspace(0, len(own) - 1, min(MOMENTS, len(own))).round().astype(int)
        title = f"{label}: {name}" if several else label
        _show(axes[0], support, "real support set")
        axes[0].set_ylabel(style.folded(title, 24) if len(rows) > 1 else "one class per row")
        for one, (step, images) in zip(axes[1:], [own[i] for i in at], strict=False):
            _show(one, images, f"step {step}" if step else "before training")
        for spare in axes[1 + len(at) :]:
            spare.remove()
    names = " and ".join(dict.fromkeys(name for _, name, *_ in rows))
    style.caption(
        figure,
        f"Left: the support set of a held-out task. Right: {names} for this task, from the same "
        "noise, after that many training steps.",
    )
    return figure


def _show(axes: Axes, images: Images, title: str) -> None:
    axes.imshow(sheet(images), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    style.frame(axes, title)


def sheet(images: Images) -> Images:
    """[rows, columns, C, H, W] as one picture [h, w] or [h, w, 3] with gaps."""
    gaps = ((0, 0), (0, 0), (0, 0), (0, GAP), (0, GAP))
    padded = np.pad(images, gaps, constant_values=SHADE)
    rows, columns, channels, height, width = padded.shape
    pixels = padded.transpose(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)
    pixels = pixels[:-GAP, :-GAP]
    return pixels[..., 0] if channels == 1 else pixels


def _pictures(run: Run) -> tuple[Images, dict[str, Generated]]:
    """Real images [way, shot, C, H, W], and generated ones by name; RecordError if damaged."""
    folder = run.folder / FOLDER
    files = sorted(folder.glob("step-*.npz"))
    if not files:
        raise RecordError(f"it saved no pictures {HINT}")
    generated: dict[str, Generated] = {}
    try:
        with np.load(folder / "task.npz", allow_pickle=False) as task:
            support = task[REAL]
        for path in files:
            step = int(path.stem.removeprefix("step-"))
            with np.load(path, allow_pickle=False) as pictures:
                for name in pictures.files:
                    generated.setdefault(name, []).append((step, pictures[name]))
        if not generated:
            raise ValueError("no images")
    except (OSError, ValueError, KeyError) as error:
        raise RecordError(f"its pictures are damaged ({error})") from error
    return support, generated


def generator(runs: list[Run], request: Request) -> Figure:
    """A panel for each measure: generated images as a line, held-out real ones dashed."""
    read = read_all(runs, request, _quality)
    found = [(run, name, one) for run, own in read for name, one in own.items()]
    figure, axes = style.panels(3, 3)
    for panel, (measure, title) in zip(axes, TITLES.items(), strict=True):
        handles = [_quality_line(panel, one, measure, i) for i, (*_, one) in enumerate(found)]
        panel.set_ylabel(title)
        panel.set_xlabel("training step")
    style.legend(figure, handles, run_names([run for run, *_ in found]))
    kind = " and ".join(dict.fromkeys(name for _, name, _ in found))
    style.caption(
        figure,
        f"{kind[:1].upper()}{kind[1:]} of held-out tasks, in the space in which the method sees "
        "them after learning the task. Dashed: as many held-out real images of the same classes. "
        "Bands: 95 % Student intervals over tasks.",
    )
    return figure


def _quality_line(axes: Axes, quality: dict[str, style.Floats], measure: str, i: int) -> Any:
    """The generated images' mean with its interval, and the real images' mean."""
    scale = 1.0 if measure == "distance" else 100.0
    steps, intervals = quality["step"], map(student_interval, scale * quality[measure])
    mean, half = np.array([(one.mean, one.half_width or 0.0) for one in intervals]).T
    (line,) = axes.plot(steps, mean, **style.of_series(i))
    style.band(axes, steps, mean - half, mean + half, line.get_color())
    if measure == "distance":
        axes.axhline(1.0, color=style.GRAY, linestyle="--", linewidth=1.0)
    else:
        real = scale * quality[f"real_{measure}"].mean(1)
        axes.plot(steps, real, color=line.get_color(), linestyle="--", linewidth=1.0)
    return line


def _quality(run: Run) -> dict[str, dict[str, style.Floats]]:
    """{what is generated: {"step": [n], measure or ``real_`` measure: [n, tasks]}}."""
    path = run.folder / FOLDER / QUALITY
    measures = [*TITLES, "real_precision", "real_recall"]
    found = {}
    try:
        lines = [json.loads(text) for text in path.read_text("utf-8").splitlines()]
        for name in dict.fromkeys(str(line["name"]) for line in lines):
            own = [line for line in lines if line["name"] == name]
            found[name] = {n: np.array([x[n] for x in own], float) for n in ("step", *measures)}
            if any(found[name][n].ndim != 2 or found[name][n].shape[1] < 2 for n in measures):
                raise ValueError("no numbers by task")
        if not found:
            raise FileNotFoundError
    except FileNotFoundError as error:
        raise RecordError(f"it measured no pictures {HINT}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"'{path}' is damaged ({error})") from error
    return found
