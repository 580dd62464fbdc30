"""How many episodes a comparison needs, from pilot runs."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fewshot_bench.errors import RecordError
from fewshot_bench.results.layout import episodes_differ
from fewshot_bench.results.record import read_table
from fewshot_bench.results.runs import Run, query_words, sampler_words


@dataclass(frozen=True)
class Pilot:
    """How much a difference varies from episode to episode."""

    runs: tuple[Run, ...]  # one or two
    variance: float  # of a per-episode difference, at the pilots' query count
    # The part of it that is inverse to the query count; None where one query per class, or unequal
    # numbers of them, do not show it.
    falls: float | None

    @property
    def query(self) -> int:
        """Queries per class in the pilots."""
        return int(self.runs[0].record["task"]["query"])

    @property
    def episodes(self) -> int:
        return int(self.runs[0].record["test"]["episodes"])

    @property
    def episodes_in_words(self) -> str:
        """``15 queries per class``, with the sampler where it is not one of the core's kinds."""
        protocol = self.runs[0].protocol()
        return query_words(protocol) + sampler_words(protocol)

    def sd(self, query: int | None = None) -> float:
        """Standard deviation of a difference at this query count, or at the pilots' own.

        ValueError: another count than the pilots', whose part that falls is not known.
        """
        if query is None or query == self.query:
            return math.sqrt(self.variance)
        if self.falls is None:
            raise ValueError("pilots of one query per class say nothing about other counts")
        return math.sqrt(self.variance - self.falls * (1 - self.query / query))


def pilot_of(runs: list[Run]) -> Pilot:
    """Two runs on the same episodes, or one that stands for two that are not paired.

    The part of the variance that falls with more queries is the binomial one of each class in
    each episode, (1/way²) Σ_c p_c (1 - p_c) / query, without bias by p (1 - p) ≈ a (1 - a) query /
    (query - 1) with the measured a. Of two runs the parts are added: given the episode and class,
    they are assumed to err independently. RecordError: the runs are of different protocols, their
    tables are missing or damaged, or nothing varies.
    """
    first, *others = runs
    for other in others:
        if reasons := episodes_differ(other, first):
            raise RecordError(
                f"'{first.folder}' and '{other.folder}' cannot be paired: {'; '.join(reasons)}."
            )
    scores = [run.scores() for run in runs]
    if others and not np.array_equal(scores[0][0], scores[1][0]):
        raise RecordError(f"'{others[0].folder}' has other episodes than '{first.folder}'.")
    parts = [part for run in runs if (part := _binomial(run)) is not None]
    # Without its last bits: equal differences stay equal.
    spread = np.round(scores[0][1] - scores[1][1] if others else scores[0][1], 14)
    methods = 1 if others else 2  # the second that there is not: as variable, and independent
    variance = methods * float(np.var(spread, ddof=1)) if len(spread) > 1 else 0.0
    falls = min(methods * sum(parts), variance) if len(parts) == len(runs) else None
    if variance == 0 or np.ptp(spread) == 0:
        raise RecordError(
            f"the scores of '{first.folder}' do not vary{' from the other' if others else ''}: "
            "nothing can be planned from them; give pilots of more episodes or queries."
        )
    return Pilot(tuple(runs), variance, falls)


def _binomial(run: Run) -> float | None:
    """Mean over episodes of the binomial variance of an accuracy.

    None at one query per class, and where classes have unequal numbers of queries.
    """
    query, way = run.record["task"]["query"], run.record["task"]["way"]
    if query < 2 or run.protocol()["unequal"]:
        return None
    accuracy = class_accuracies(run)
    within = (accuracy * (1 - accuracy)).sum(axis=1) / (query - 1) / way**2
    return float(within.mean())


def class_accuracies(run: Run) -> npt.NDArray[np.float64]:
    """Accuracy of each class slot in each episode [E, way]; RecordError: no or a bad table."""
    path = run.folder / "confusion.csv"
    table = read_table(path, ("episode", "target", "predicted", "count"))
    try:
        target, count, way = table["target"].astype(int), table["count"], run.setting.way
        hit = table["predicted"] == target
        episodes, row = np.unique(table["episode"].astype(int), return_inverse=True)
        total, right = np.zeros((2, len(episodes), way))
        np.add.at(total, (row, target), count)
        np.add.at(right, (row[hit], target[hit]), count[hit])
    except (KeyError, IndexError, ValueError) as error:
        raise RecordError(f"'{path}' is no table of confusions ({error}).") from error
    if not len(total) or (total == 0).any():
        raise RecordError(f"'{path}' lacks classes of some episodes.")
    return right / total
