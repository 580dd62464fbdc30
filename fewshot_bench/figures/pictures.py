"""A real task beside what a method draws for it, over training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewshot_bench.errors import RecordError
from fewshot_bench.figures import Ask
from fewshot_bench.figures.series import apart
from fewshot_bench.figures.style import GRAY, WIDTH, caption, folded
from fewshot_bench.results.compare import Run

FOLDER, REAL = "pictures", "support"  # in a run's folder; the key of the real images
MOST = 4  # moments of the training in a row
GAP, SHADE = 2, 170  # pixels between images, and their gray
Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Kept:
    """What a run kept.

    Arguments:
        support: real images [way, shot, C, H, W].
        drawn: {name: [(step, images [way, k, C, H, W])]}, from the first step to the last.
    """

    support: Images
    drawn: dict[str, list[tuple[int, Images]]]


def draw(runs: list[Run], ask: Ask) -> Figure | None:
    """One row per run and name: the support set, then the pictures at moments of the training."""
    rows: list[tuple[Run, str, Kept]] = []
    for run in runs:
        try:
            kept = read(run.folder)
        except RecordError as error:
            ask.lacks(run, f"({error})")
            continue
        rows += [(run, name, kept) for name in kept.drawn]
    if not rows:
        return None
    count = 1 + max(len(moments(kept.drawn[name])) for _, name, kept in rows)
    each = WIDTH / count
    figure = Figure(figsize=(WIDTH, len(rows) * (each * _height(rows) + 0.2)), layout="constrained")
    grid = figure.subplots(len(rows), count, squeeze=False)
    labels = apart([run for run, _, _ in rows])
    for axes, (_, name, kept), label in zip(grid, rows, labels, strict=True):
        several = f"{label}: {name}" if len(kept.drawn) > 1 else label
        show(axes[0], kept.support, "real support set")
        axes[0].set_ylabel(folded(several, 24) if len(rows) > 1 else "one class per row")
        shown = moments(kept.drawn[name])
        for one, (step, images) in zip(axes[1:], shown, strict=False):
            show(one, images, f"step {step}" if step else "before training")
        for spare in axes[1 + len(shown) :]:
            spare.remove()
    names = " and ".join(dict.fromkeys(name for _, name, _ in rows))
    caption(
        figure,
        f"Left: the support set of a task that is never trained on. Right: {names} for "
        "the same task, from the same noise, after so many training steps.",
    )
    return figure


def _height(rows: list[tuple[Run, str, Kept]]) -> float:
    """Height over width of the tallest grid."""
    shapes = [sheet(kept.support).shape for _, _, kept in rows]
    shapes += [sheet(kept.drawn[name][0][1]).shape for _, name, kept in rows]
    return max(height / width for height, width, *_ in shapes)


def moments(drawn: list[tuple[int, Images]]) -> list[tuple[int, Images]]:
    """At most ``MOST`` of the pictures: the first, the last, and evenly between."""
    at = np.linspace(0, len(drawn) - 1, min(MOST, len(drawn))).round().astype(int)
    return [drawn[i] for i in at]


def show(axes: Axes, images: Images, title: str) -> None:
    """A grid of images in an axes."""
    pixels = sheet(images)
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    axes.spines[:].set(visible=True, color=GRAY)


def sheet(images: Images) -> Images:
    """[rows, columns, C, H, W] as one picture [h, w] or [h, w, 3] with gaps."""
    rows, columns, channels, height, width = images.shape
    shape = (channels, rows * (height + GAP) - GAP, columns * (width + GAP) - GAP)
    pixels = np.full(shape, SHADE, np.uint8)
    for (r, c), _ in np.ndenumerate(images[:, :, 0, 0, 0]):
        top, left = r * (height + GAP), c * (width + GAP)
        pixels[:, top : top + height, left : left + width] = images[r, c]
    return pixels[0] if channels == 1 else pixels.transpose(1, 2, 0)


def read(folder: Path) -> Kept:
    """The pictures of a run.

    Raises:
        RecordError: it kept none, or a file is damaged.
    """
    files = sorted((folder / FOLDER).glob("step-*.npz"))
    if not files:
        raise RecordError("it kept no pictures (fsb run METHOD --pictures, of a method that draws)")
    drawn: dict[str, list[tuple[int, Images]]] = {}
    try:
        with np.load(folder / FOLDER / "task.npz", allow_pickle=False) as task:
            support = task[REAL]
        for path in files:
            with np.load(path, allow_pickle=False) as pictures:
                for name in pictures.files:
                    step = int(path.stem.removeprefix("step-"))
                    drawn.setdefault(name, []).append((step, pictures[name]))
    except (OSError, ValueError, KeyError) as error:
        raise RecordError(f"its pictures are damaged ({error})") from error
    return Kept(support, drawn)
