"""The confusion of one test episode."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from fewshot_bench.errors import ConfigError
from fewshot_bench.figures import Ask
from fewshot_bench.figures.answers import Answers, readable
from fewshot_bench.figures.real import names_of
from fewshot_bench.figures.series import apart
from fewshot_bench.figures.style import GRAY, PERCENT, WIDTH, caption, folded
from fewshot_bench.results.compare import Run

SMALL = 8  # classes up to which two runs fit side by side


def draw(runs: list[Run], ask: Ask) -> Figure | None:
    """A table of counts for each run that met the episode."""
    kept = readable(runs, ask)
    if not kept:
        return None
    row = choose(kept[0][1], ask.episode)
    first, reference = kept[0]
    shown = [kept[0]]
    for run, answers in kept[1:]:
        if run.record["episodes_digest"] == first.record["episodes_digest"]:
            shown.append((run, answers))
        else:
            ask.lacks(run, f"met other episodes than '{first.folder.name}'")
    names, ids = names_of(first, ask), reference.classes[row]
    words = [f"class {c}" if names is None else names.classes[c] for c in ids]
    way = len(words)
    columns = 2 if len(shown) > 1 and way <= SMALL else 1
    rows = -(-len(shown) // columns)
    side = min(WIDTH / columns, 1.6 + 0.32 * way)
    figure = Figure(figsize=(columns * side + 0.6, rows * side), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    top = int(max(answers.counts[row].sum(1).max() for _, answers in shown))
    for axes, (_, answers), label in zip(grid, shown, apart([r for r, _ in shown]), strict=False):
        counts = answers.counts[row]
        axes.imshow(counts, cmap="Blues", vmin=0, vmax=top)
        for (i, j), count in np.ndenumerate(counts):
            if count:
                shade = "white" if count > top / 2 else "black"
                axes.text(j, i, str(count), ha="center", va="center", color=shade, fontsize=7)
        axes.set_xticks(range(way), words, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(way), words)
        axes.grid(False)
        axes.tick_params(length=0)
        axes.set_xlabel("predicted class")
        right = PERCENT * np.trace(counts) / counts.sum()
        axes.set_title(f"{folded(label)}: {right:.1f} %")
        axes.spines[:].set(visible=True, color=GRAY)
    for spare in grid[len(shown) :]:
        spare.remove()
    for axes in grid[::columns]:
        axes.set_ylabel("true class")
    why = "" if ask.episode is not None else f", the hardest of {apart([first])[0]}"
    number = int(reference.episode[row])
    caption(figure, f"Test episode {number}{why}: numbers are queries; empty cells hold none.")
    return figure


def choose(answers: Answers, episode: int | None) -> int:
    """The row of an episode; None: of the one with the fewest right answers, the first of these.

    Raises:
        ConfigError: there is no such episode.
    """
    if episode is None:
        return int(answers.overall.argmin())
    at = np.flatnonzero(answers.episode == episode)
    if not len(at):
        raise ConfigError(
            f"--episode {episode}: the first run has episodes {int(answers.episode[0])} to "
            f"{int(answers.episode[-1])}."
        )
    return int(at[0])
