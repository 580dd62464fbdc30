"""Figures of finished runs, one function per kind in the modules of this room.

Others import from here alone: what is needed to list kinds, check a request, draw and save.
matplotlib is imported when something is drawn.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fewshot_bench.errors import ConfigError, RecordError, UnknownName

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fewshot_bench.results.runs import Run

SUFFIXES = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class Kind:
    """A kind of figure.

    ``module`` of this room has a function of the kind's name from (runs, :class:`Request`) to a
    Figure; it raises :class:`NothingToDraw` if no run has what it needs.
    """

    module: str
    sentence: str  # what it shows
    uses: str = ""  # the field of Request that applies to it
    evaluates: bool = True  # whether it shows results of an evaluation
    compares: bool = True  # whether it compares the accuracies or times of runs


KINDS: dict[str, Kind] = {
    "learning": Kind("training", "validation accuracy and training losses against the step",
                     evaluates=False),
    "time": Kind("training", "validation accuracy against training time, and test accuracy"),
    "forest": Kind("comparison", "paired differences from --baseline, by setting", "baseline"),
    "classes": Kind("classes", "accuracy of each class, and of each family (alphabet)"),
    "confusion": Kind("classes", "confusion of the classes of an --episode", "episode"),
    "steps": Kind("training", "time of a training step, and the share of its phases",
                  evaluates=False),
    "settings": Kind("comparison", "accuracy against shot and way"),
    "episode": Kind("generator", "a real task beside a generator's images for it, over training",
                    evaluates=False, compares=False),
    "generator": Kind("generator", "precision and recall of a generator's images, over training",
                      evaluates=False, compares=False),
}  # fmt: skip


class NothingToDraw(Exception):
    """No run has what a kind of figure needs."""


@dataclass
class Request:
    """Options of a figure, and what it could not show."""

    baseline: str | None = None  # method or id of a run that others are compared with
    episode: int | None = None  # number of a test episode; None: the hardest
    left_out: list[str] = field(default_factory=list)  # filled while drawing: a line each

    def leave_out(self, run: Run, why: str) -> None:
        """Note that a run is not in the figure."""
        self.left_out.append(f"'{run.folder}' {why}")


def check(kind: str, path: Path | None = None) -> None:
    """Raise now what :func:`draw` and :func:`save` would raise after reading all runs.

    Raises:
        UnknownName: no such kind.
        ConfigError: a file name that does not end in one of ``SUFFIXES``, or no matplotlib.
    """
    if kind not in KINDS:
        raise UnknownName("kind of figure", kind, KINDS, "See 'fsb figure --help'.")
    if path is not None and path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"-o {path}: expected a name that ends in .png, .pdf or .svg.")
    try:
        importlib.import_module("matplotlib")
    except ImportError as error:
        raise ConfigError(
            f"figures need matplotlib ({error}); install it: pip install 'fewshot-bench[figures]'"
        ) from error


def draw(kind: str, runs: Sequence[Run], request: Request | None = None) -> Figure:
    """Draw runs; ``request.left_out`` lists afterwards what is missing in the figure.

    Raises:
        UnknownName: no such kind, or no such baseline.
        ConfigError: no matplotlib, or an option that is missing or impossible.
        RecordError: none of the runs has what this kind needs.
    """
    check(kind)
    from fewshot_bench.figures import style

    request = request or Request()
    module = importlib.import_module(f"{__name__}.{KINDS[kind].module}")
    try:
        with style.in_use():
            figure: Figure = getattr(module, kind)(list(runs), request)
    except NothingToDraw:
        why = f" ({request.left_out.pop().rstrip('.')})" if request.left_out else ""
        raise RecordError(f"nothing to draw: no run has what '{kind}' needs{why}.") from None
    if KINDS[kind].evaluates:
        style.caption(figure, _evaluated(runs))
    if KINDS[kind].compares:
        note_trainings(figure, runs)
    return figure


def note_trainings(figure: Figure, runs: Sequence[Run]) -> None:
    """Add to the caption how runs on the same kind of episodes were trained differently."""
    from fewshot_bench.figures.style import caption
    from fewshot_bench.results.training import TRAITS, differing, trained

    groups: dict[object, list[Run]] = {}
    for run in runs:
        groups.setdefault((run.record["evaluated_digest"], run.setting), []).append(run)
    found = {trait.name for group in groups.values() for trait in differing([group])}
    heads = [trait.label for trait in TRAITS if trait.name in found]
    if any(len({trained([run]) for run in group}) > 1 for group in groups.values()):
        heads.append("whether anything was trained")
    if heads:
        caption(figure, f"The runs were trained differently: {', '.join(heads)}.")


def _evaluated(runs: Sequence[Run]) -> str:
    """A sentence about episodes other than the usual ones: closed ones of the test split."""
    from fewshot_bench.results.runs import evaluated_words

    words = dict.fromkeys(evaluated_words(run.protocol()) for run in runs)
    listed = "; ".join(one.strip(", ") for one in words if one)
    listed = listed.replace("validation split", "of the validation split")
    return f"{'Some of these' if '' in words else 'These'} are episodes {listed}." if listed else ""


def save(figure: Figure, path: Path) -> None:
    """Write a figure, the same bytes each time; ConfigError if the file cannot be written."""
    from fewshot_bench.figures.style import rendered
    from fewshot_bench.results.record import write_atomically

    content = rendered(figure, path.suffix.lower().removeprefix("."))
    write_atomically(path, content, "give another file with -o")
