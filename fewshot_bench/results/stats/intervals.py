"""Intervals of a mean of per-episode scores.

Student's t comes from ``scipy.special``: importing ``scipy.stats`` takes a second or more and is
left to what nothing else has.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fewshot_bench.errors import UnknownName

Array = npt.NDArray[np.float64]
Scores = Sequence[float] | Array
Grid = Sequence[Sequence[float]] | Array

INTERVALS: Mapping[str, str] = {
    "student": "Student's t over episodes",
    "percentile": "percentile bootstrap over episodes",
    "bca": "BCa bootstrap over episodes",
    "classes": "classes as clusters",
    "hierarchical": "training seeds and episodes",
    "seeds": "Student's t over training seeds",
}
UNEVEN = ("bca", "classes")  # their ends lie unevenly about the mean, so ± would not give them


@dataclass(frozen=True)
class Interval:
    """A mean with its interval. Of a single score, all but mean and n are None.

    Arguments:
        low, high: its ends; ``half_width`` is half their distance.
        sd: standard deviation of a score (ddof 1).
        n: how many scores.
        varies: False if all scores are the same: the width of 0 then means nothing.
        clusters: how many classes there are, where those are what varies; else None.
    """

    mean: float
    half_width: float | None
    low: float | None
    high: float | None
    sd: float | None
    n: int
    varies: bool
    clusters: int | None = None


def what_it_covers(kind: str, sampling: str) -> str:
    """What varies in an interval of a kind of ``INTERVALS`` and what is fixed: a sentence.

    ``sampling`` is ``"open"`` or ``"closed"``. UnknownName: there is no interval of this kind.
    """
    if kind not in INTERVALS:
        raise UnknownName("interval", kind, INTERVALS)
    drawn = "which episodes were drawn from these test images"
    images, images_and = "the images, their classes", "the images and their classes"
    if sampling == "open":
        drawn = "which images of these test classes came into the test"
        images = images_and = "the classes"
    varies, fixed = {
        "seeds": ("the training seed", "the test episodes, their images and classes are"),
        "classes": (
            "which classes and images came into the test, and which episodes were drawn",
            "the training seed is",
        ),
        "hierarchical": (f"the training seed and {drawn}", f"{images_and} are"),
    }.get(kind, (drawn, f"{images} and the training seed are"))
    return f"It covers {varies}; {fixed} fixed."


def checked(scores: Scores) -> Array:
    """The scores as an array; raises ValueError if there is none, or one is not finite."""
    values = np.asarray(scores, dtype=np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise ValueError("an interval needs at least one score, all finite")
    return values


def student_interval(scores: Scores, level: float = 0.95) -> Interval:
    """Student's t interval of the mean of independent scores.

    Arguments:
        scores: one per episode.
        level: confidence level, in (0, 1), here and in all other intervals.

    Raises:
        ValueError: there is no score, or one is not finite.
    """
    from scipy.special import stdtrit

    values = checked(scores)
    mean, n = float(values.mean()), len(values)
    if n == 1:
        return Interval(mean, None, None, None, None, 1, False)
    if (values == values[0]).all():
        return Interval(mean, 0.0, mean, mean, 0.0, n, False)
    sd = float(values.std(ddof=1))
    half = float(stdtrit(n - 1, 0.5 + level / 2)) * sd / math.sqrt(n)
    return Interval(mean, half, mean - half, mean + half, sd, n, True)


def bootstrap_interval(
    scores: Scores, level: float = 0.95, method: str = "percentile", resamples: int = 9999,
    seed: int = 0,
) -> Interval:  # fmt: skip
    """Bootstrap interval of the mean of independent scores (``scipy.stats.bootstrap``).

    Arguments:
        scores: one per episode.
        method: ``"percentile"``, or ``"BCa"`` (Efron, JASA 82, 1987), which corrects for bias and
            skewness. The ends lie unevenly about the mean; ``half_width`` is half their distance.
        seed: of the resampling, so that the interval repeats.

    Raises:
        ValueError: there is no score, one is not finite, or the method is another.
    """
    values = checked(scores)
    if method.lower() not in ("percentile", "bca"):
        raise ValueError(f"expected the bootstrap 'percentile' or 'BCa', got '{method}'")
    plain = student_interval(np.round(values, 14), level)
    if not plain.varies:
        return plain
    from scipy.stats import bootstrap

    low, high = bootstrap(
        (values,),
        np.mean,
        confidence_level=level,
        method=method,
        n_resamples=resamples,
        batch=max(1, 4_000_000 // len(values)),  # 32 MB at a time
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    mean, sd, low, high = map(float, (values.mean(), values.std(ddof=1), low, high))
    return Interval(mean, (high - low) / 2, low, high, sd, len(values), True)


def seeds_interval(means: Scores, level: float = 0.95) -> Interval:
    """Student's t interval over training seeds alone; one seed has no width.

    ``means``: [S], the accuracy of each seed's run, all on the same test episodes. Raises
    ValueError as :func:`student_interval`.
    """
    return student_interval(np.round(checked(means), 14), level)


def hierarchical_interval(scores: Grid, level: float = 0.95) -> Interval:
    """Interval of the mean for a claim about training seeds and episodes together.

    Seeds and episodes cross: score = mean + seed + episode + rest, all random. With the mean
    squares of the two-way layout, MS_S (seeds), MS_E (episodes) and MS_R (rest), the variance of
    the mean is A + B, A = MS_S / SE and B = (MS_E - MS_R) / SE. A has S - 1 degrees of freedom
    and is by far the less certain, so the half width is √(t²_{S-1} A + t²_{E-1} B) (Banerjee,
    Sankhya 22, 1960), which does not fall under its level whatever the share of the seeds.
    Satterthwaite's degrees of freedom, the usual choice, did with 3 seeds (docs/statistics.md).

    Arguments:
        scores: [S, E], a row per seed, all rows over the same episodes.

    Returns:
        ``n`` counts all S times E scores, ``sd`` is of one of them (√ of the three variances).
        ``half_width`` is None for one seed or one episode.

    Raises:
        ValueError: the scores are no such table, or one is not finite.
    """
    return TwoWay(scores).interval(level)


class TwoWay:
    """Scores of seeds by episodes [S, E]: their mean, and the two parts of its variance."""

    def __init__(self, scores: Grid) -> None:
        table = np.asarray(scores, dtype=np.float64).round(14)
        if table.ndim != 2:
            raise ValueError(f"expected a table of seeds by episodes [S, E], got {table.shape}")
        checked(table.ravel())
        self.seeds, self.episodes = seeds, episodes = table.shape
        self.mean, by_seed, by_episode = float(table.mean()), table.mean(axis=1), table.mean(axis=0)
        self.varies = bool((table != table[0, 0]).any())
        self.of_seeds = self.of_episodes = 0.0
        self.sd = 0.0 if not self.varies and table.size > 1 else None
        if seeds == 1 or episodes == 1 or not self.varies:
            return
        rest = table - by_seed[:, None] - by_episode + self.mean
        of_rest = float((rest**2).sum()) / ((seeds - 1) * (episodes - 1)) / table.size
        self.of_seeds = float(by_seed.var(ddof=1)) / seeds
        # The rest is in both; the variance of the mean is at least the rest's part.
        of_episodes = float(by_episode.var(ddof=1)) / episodes - of_rest
        self.of_episodes = max(of_episodes, of_rest - self.of_seeds, 0.0)
        # One score: the rest, and what a seed and an episode add to it, none of them under 0.
        seed = max(self.of_seeds - of_rest, 0.0) * seeds
        self.sd = math.sqrt(of_rest * table.size + seed + self.of_episodes * episodes)

    def interval(self, level: float) -> Interval:
        """The interval of the mean; one seed or episode has none."""
        n, mean = self.seeds * self.episodes, self.mean
        if self.seeds == 1 or self.episodes == 1:
            return Interval(mean, None, None, None, self.sd, n, self.varies)
        half = self.half_width(0.5 - level / 2)
        return Interval(mean, half, mean - half, mean + half, self.sd, n, self.varies)

    def half_width(self, tail: float) -> float:
        """Of the interval that leaves this probability on either side."""
        from scipy.special import stdtrit

        t_seeds, t_episodes = stdtrit((self.seeds - 1, self.episodes - 1), tail)
        return math.sqrt(t_seeds**2 * self.of_seeds + t_episodes**2 * self.of_episodes)
