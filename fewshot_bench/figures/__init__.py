"""Pictures of finished runs. Importing this imports nothing heavy; drawing needs matplotlib."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fewshot_bench.errors import ConfigError, RecordError, UnknownName

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fewshot_bench.results.compare import Run

SUFFIXES = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class Kind:
    """A kind of picture.

    Arguments:
        module: of this package; its ``draw`` takes (runs, :class:`Ask`) and returns a Figure, or
            None if no run has what it needs.
        sentence: what it shows.
        uses: the field of :class:`Ask` that it goes by.
        of_episodes: whether it shows what an evaluation gave.
    """

    module: str
    sentence: str
    uses: str = ""
    of_episodes: bool = True


KINDS: dict[str, Kind] = {
    "learning": Kind(
        "learning", "validation accuracy and training losses against the step", of_episodes=False
    ),
    "time": Kind("seconds", "validation accuracy against training time, and test accuracy"),
    "forest": Kind("forest", "paired differences from --baseline, by setting", "baseline"),
    "classes": Kind("classes", "accuracy of each class, and of each family (alphabet)"),
    "confusion": Kind("confusion", "which class was taken for which in an --episode", "episode"),
    "steps": Kind(
        "steps", "how long a training step takes, and what its time goes into", of_episodes=False
    ),
    "settings": Kind("settings", "accuracy against shot and way"),
    "episode": Kind(
        "pictures",
        "a real task beside a generator's images for it, over training",
        of_episodes=False,
    ),
    "generator": Kind(
        "generator",
        "precision and recall of a generator's images, over training",
        of_episodes=False,
    ),
}


# Those that set the accuracies or times of runs beside each other.
ACROSS = ("learning", "time", "forest", "classes", "confusion", "steps", "settings")


@dataclass
class Ask:
    """What a picture is asked for, and what it could not show.

    Arguments:
        baseline: method or id of a run that others are compared with.
        episode: number of a test episode; None: the hardest.
        left_out: one line for each thing that the picture lacks, filled while drawing.
    """

    baseline: str | None = None
    episode: int | None = None
    left_out: list[str] = field(default_factory=list)

    def lacks(self, run: Run, why: str) -> None:
        """Note that a run is not in the picture."""
        self.left_out.append(f"'{run.folder}' {why}")


def check(kind: str, path: Path | None = None) -> None:
    """Raise now what :func:`draw` and :func:`save` would raise after reading all runs.

    Raises:
        UnknownName: no such kind.
        ConfigError: a file that ends in something else than ``SUFFIXES``, or no matplotlib.
    """
    if kind not in KINDS:
        raise UnknownName("kind of figure", kind, KINDS, "'fsb figure --help' tells what they are.")
    if path is not None and path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"-o {path}: the ending has to be .png, .pdf or .svg.")
    try:
        importlib.import_module("matplotlib")
    except ImportError as error:
        raise ConfigError(
            f"figures need matplotlib ({error}); install it: pip install 'fewshot-bench[figures]'"
        ) from error


def draw(kind: str, runs: Sequence[Run], ask: Ask | None = None) -> Figure:
    """A picture of these runs.

    Arguments:
        kind: one of ``KINDS``.
        runs: see :func:`fewshot_bench.results.compare.load_runs`.
        ask: options; its ``left_out`` tells afterwards what is not in the picture.

    Raises:
        UnknownName: no such kind, or no such baseline.
        ConfigError: no matplotlib, or an option that is missing or impossible.
        RecordError: none of the runs has what this kind needs.
    """
    check(kind)
    from matplotlib import rc_context

    style = importlib.import_module("fewshot_bench.figures.style")
    module = importlib.import_module(f"fewshot_bench.figures.{KINDS[kind].module}")
    ask = ask or Ask()
    with rc_context(style.RC):
        figure: Figure | None = module.draw(list(runs), ask)
    if figure is None:
        why = f" ({ask.left_out[-1].rstrip('.')})" if ask.left_out else ""
        ask.left_out = ask.left_out[:-1]
        raise RecordError(f"nothing to draw: no run has what '{kind}' needs{why}.")
    if KINDS[kind].of_episodes and (sentence := _evaluated(runs)):
        style.caption(figure, sentence)
    if kind in ACROSS:
        note_trainings(figure, runs)
    return figure


def note_trainings(figure: Figure, runs: Sequence[Run]) -> None:
    """Say in the caption in what runs on the same kind of episodes were trained differently."""
    from fewshot_bench.figures.style import caption
    from fewshot_bench.results.training import differing, trained
    from fewshot_bench.results.traits import TRAITS

    groups: dict[object, list[Run]] = {}
    for run in runs:
        data = run.record.get("evaluated_digest") or run.record["dataset"]
        groups.setdefault((data, run.setting), []).append(run)
    found = {trait.name for group in groups.values() for trait in differing([group])}
    heads = [trait.head for trait in TRAITS if trait.name in found]
    idle = any(len({trained([run]) for run in group}) > 1 for group in groups.values())
    heads += ["whether anything was trained"] if idle else []
    if heads:
        caption(figure, f"The runs were trained differently: {', '.join(heads)}.")


def _evaluated(runs: Sequence[Run]) -> str:
    """What the episodes were where they were not the usual ones: closed ones of the test split."""
    from fewshot_bench.results.protocol import evaluated_words

    words = dict.fromkeys(evaluated_words(run.protocol()) for run in runs)
    told = [one.strip(", ").replace("validation split", "of the validation split") for one in words]
    told = [one for one in told if one]
    some = "Some of these" if len(told) < len(words) else "These"
    return f"{some} are episodes {'; '.join(told)}." if told else ""


def save(figure: Figure, path: Path) -> None:
    """Write a picture; the same figure gives the same bytes.

    Raises:
        ConfigError: the file cannot be written.
    """
    from fewshot_bench.figures.style import rendered
    from fewshot_bench.results.tables import write_atomically

    content = rendered(figure, path.suffix.lower().removeprefix("."))
    write_atomically(path, content, "give another file with -o")
