"""How all pictures look: colors, markers, captions, and files that are the same each time."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

RC: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
    "svg.hashsalt": "fewshot-bench",
    "hatch.linewidth": 0.6,
    "text.parse_math": False,  # names are names, not formulas
}
# Okabe and Ito's colors, which color-blind readers tell apart, in an order in which neighbors
# differ in lightness too; the markers and lines tell them apart in gray.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#D55E00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
HATCHES = ("", "////", "....", "xxxx", "----")
BAND = 0.18  # opacity
WIDTH, GRAY = 6.3, "0.35"  # inches of a page's text; of what is not data
LETTERS = 20  # of the caption, in an inch
PERCENT = 100.0
CAPTION = "caption"  # the id of its text

Floats = npt.NDArray[np.float64]


def look(i: int) -> dict[str, Any]:
    """Color, marker and line of the i-th series; 35 of them differ."""
    return {
        "color": COLORS[i % len(COLORS)],
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": LINES[i % len(LINES)],
    }


def panels(
    count: int, columns: int = 2, height: float = 2.4, **more: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of one page width with ``count`` axes in rows of at most ``columns``."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH, rows * height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **more).flatten()
    for spare in axes[count:]:
        spare.remove()
    return figure, list(axes[:count])


def caption(figure: Figure, *sentences: str) -> None:
    """Say below the picture what it shows: what the bands and bars are. Again: say more."""
    text = " ".join(sentence for sentence in sentences if sentence)
    written = next((one for one in figure.texts if one.get_gid() == CAPTION), None)
    if written is None:
        written = figure.text(0.01, -0.02, "", va="top", fontsize=7, color=GRAY, gid=CAPTION)
    before = written.get_text().replace("\n", " ")
    wide = int(figure.get_size_inches()[0] * LETTERS)
    written.set_text(textwrap.fill(f"{before} {text}".strip(), wide))


def legend(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """One legend above all panels, for which the figure grows."""
    labels = [folded(name, 60) for name in names]
    longest = max(len(line) for label in labels for line in label.split("\n"))
    width, height = figure.get_size_inches()
    columns = max(1, min(len(labels), int(width * 14 / (longest + 8))))
    lines = -(-sum(label.count("\n") + 1 for label in labels) // columns)
    figure.set_size_inches(width, height + 0.1 + 0.17 * lines)
    figure.legend(handles, labels, loc="outside upper center", ncols=columns)


def folded(name: str, letters: int = 40) -> str:
    """A long name on several lines."""
    return "\n".join(textwrap.wrap(name, letters)) or name


def wide_range(values: Any, factor: float = 20.0) -> bool:
    """Whether positive values differ so much that a logarithmic axis shows them better."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    return bool(len(finite) and finite.min() > 0 and finite.max() > factor * finite.min())


def plain_ticks(axis: Any) -> None:
    """Numbers as they are on a logarithmic axis, not powers of ten."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def whiskers(
    axes: Axes, x: Any, y: Any, low: Any, high: Any, *, sideways: bool = False, **more: Any
) -> Any:
    """Points with intervals; NaN where there is none. ``sideways``: the intervals lie along x."""
    of = x if sideways else y
    ends = np.array([np.subtract(of, low), np.subtract(high, of)]).reshape(2, -1)
    along: dict[str, Any] = {"xerr" if sideways else "yerr": np.maximum(ends, 0)}
    style: dict[str, Any] = {"capsize": 2.5, "elinewidth": 1.0, "linestyle": "none"} | more
    return axes.errorbar(x, y, **along, **style)


def rendered(figure: Figure, format: str) -> bytes:
    """A picture as the content of a png, pdf or svg file; the same figure gives the same bytes."""
    nameless: dict[str, dict[str, None]] = {
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
        "svg": {"Date": None, "Creator": None},
    }
    buffer = io.BytesIO()
    with rc_context(RC):
        figure.savefig(
            buffer, format=format, metadata=nameless[format], bbox_inches="tight", pad_inches=0.04
        )
    return buffer.getvalue()
