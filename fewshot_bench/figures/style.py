"""The style of all pictures: colors, markers, captions, and reproducible files."""

import io
import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

RC: Any = {
    "font.size": 8, "axes.titlesize": 8, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": "0.9", "grid.linewidth": 0.6,
    "lines.linewidth": 1.3, "lines.markersize": 4.5, "hatch.linewidth": 0.6,
    "legend.frameon": False, "legend.handlelength": 2.6, "figure.dpi": 100, "savefig.dpi": 200,
    "pdf.fonttype": 42, "svg.hashsalt": "fewshot-bench",
    "text.parse_math": False,  # a name with $ is not a formula
}  # fmt: skip
# The palette of Okabe and Ito, safe for color-blind readers, ordered so that neighbors differ in
# lightness too; markers and lines distinguish series in gray.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#D55E00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
WIDTH = 6.3  # of a page's text, in inches
GRAY = "0.35"  # for what is not data
LETTERS = 20  # of the caption, per inch
PERCENT = 100.0
CAPTION = "caption"  # the id of its text artist

Floats = npt.NDArray[np.float64]


def in_use() -> AbstractContextManager[None]:
    """A block that draws in this style."""
    return rc_context(RC)


def of_series(i: int) -> dict[str, Any]:
    """Color, marker and line style of the i-th series; 35 combinations differ."""
    values = {"color": COLORS, "marker": MARKERS, "linestyle": LINES}
    return {name: choices[i % len(choices)] for name, choices in values.items()}


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """A figure as wide as a page; sizes in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def panels(count: int, columns: int = 2, height: float = 2.4) -> tuple[Figure, list[Axes]]:
    """A figure as wide as a page, with ``count`` axes in rows of at most ``columns``."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = new_figure(rows * height)
    return figure, grid(figure, rows, columns, count)


def grid(figure: Figure, rows: int, columns: int, count: int, **more: Any) -> list[Axes]:
    """The first ``count`` axes of a grid, row by row; the others are removed."""
    axes = figure.subplots(rows, columns, squeeze=False, **more).flatten()
    for spare in axes[count:]:
        spare.remove()
    return list(axes[:count])


def caption(figure: Figure, *sentences: str) -> None:
    """Add sentences below the picture: what bands and bars are."""
    artist = next((text for text in figure.texts if text.get_gid() == CAPTION), None)
    if artist is None:
        artist = figure.text(0.01, -0.02, "", va="top", fontsize=7, color=GRAY, gid=CAPTION)
    text = " ".join(filter(None, (artist.get_text().replace("\n", " "), *sentences)))
    artist.set_text(textwrap.fill(text, int(figure.get_size_inches()[0] * LETTERS)))


def legend(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Put one legend above all panels; the figure grows by its height."""
    labels = [folded(name, 60) for name in names]
    longest = max(len(line) for label in labels for line in label.split("\n"))
    width, height = figure.get_size_inches()
    columns = max(1, min(len(labels), int(width * 14 / (longest + 8))))
    lines = -(-sum(label.count("\n") + 1 for label in labels) // columns)
    figure.set_size_inches(width, height + 0.1 + 0.17 * lines)
    figure.legend(handles, labels, loc="outside upper center", ncols=columns)


def folded(name: str, letters: int = 40) -> str:
    """A long name, wrapped."""
    return "\n".join(textwrap.wrap(name, letters)) or name


def log_if_wide(axes: Axes, which: str, values: Any, factor: float = 20.0) -> bool:
    """Make an axis (``x`` or ``y``) logarithmic if its values are positive and differ that much."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    wide = bool(len(finite) and finite.min() > 0 and finite.max() > factor * finite.min())
    if wide:
        axes.set(**{f"{which}scale": "log"})
        axis = axes.xaxis if which == "x" else axes.yaxis  # with plain numbers, no powers of ten
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    return wide


def percent(*values: float | None) -> tuple[float, ...]:
    """Fractions in percent; NaN for None."""
    return tuple(np.nan if value is None else PERCENT * value for value in values)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Label rows 0, 1, ... from the top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def frame(axes: Axes, title: str) -> None:
    """Make the axes a framed picture."""
    axes.set_title(title)
    axes.grid(False)
    axes.spines[:].set(visible=True, color=GRAY)


def band(axes: Axes, x: Any, low: Any, high: Any, color: Any) -> None:
    """A band around a line."""
    axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)


def whiskers(
    axes: Axes, x: Any, y: Any, low: Any, high: Any, *, sideways: bool = False, **more: Any
) -> Any:
    """Points with intervals; NaN where there is none. ``sideways``: intervals along x."""
    center = x if sideways else y
    ends = np.array([np.subtract(center, low), np.subtract(high, center)]).reshape(2, -1)
    along: dict[str, Any] = {"xerr" if sideways else "yerr": np.maximum(ends, 0)}
    style: dict[str, Any] = {"capsize": 2.5, "elinewidth": 1.0, "linestyle": "none"} | more
    return axes.errorbar(x, y, **along, **style)


def rendered(figure: Figure, format: str) -> bytes:
    """The content of a png, pdf or svg file; the same figure gives the same bytes."""
    changing = {"png": ("Software",), "pdf": ("CreationDate", "Creator", "Producer"),
                "svg": ("Date", "Creator")}  # fmt: skip
    anonymous = dict.fromkeys(changing[format])
    buffer = io.BytesIO()
    with in_use():
        figure.savefig(
            buffer, format=format, metadata=anonymous, bbox_inches="tight", pad_inches=0.04
        )
    return buffer.getvalue()
