"""Intervals and paired tests on per-episode scores.

What each of them covers and does not is told in docs/statistics.md. Student's t comes from
``scipy.special``: ``scipy.stats`` takes a second or more to import and is left to the rank test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Scores = Sequence[float] | npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean with its interval.

    Arguments:
        mean: of the scores.
        half_width: of the interval around it; None for a single score.
        low, high: its ends; None for a single score.
        sd: standard deviation of a score (ddof 1); None for a single score.
        n: how many scores.
        varies: False if all scores are the same: the width of 0 then says nothing.
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


@dataclass(frozen=True)
class Paired:
    """The difference a - b of two methods on the same episodes.

    Arguments:
        difference: mean of the differences.
        half_width, low, high: Student interval of that mean; None for a single episode.
        p_t: two-sided paired t test; None if the differences do not vary.
        p_wilcoxon: two-sided Wilcoxon signed-rank test; None likewise, or if it was not asked for.
        effect_size: mean difference over its standard deviation (Cohen's d_z); None likewise.
        n: episodes.
        varies: whether the differences vary.
    """

    difference: float
    half_width: float | None
    low: float | None
    high: float | None
    p_t: float | None
    p_wilcoxon: float | None
    effect_size: float | None
    n: int
    varies: bool


def checked(scores: Scores) -> npt.NDArray[np.float64]:
    """The scores as an array.

    Raises:
        ValueError: there is no score, or one is not finite.
    """
    values = np.asarray(scores, dtype=np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise ValueError("an interval needs at least one score, all finite")
    return values


def student_interval(scores: Scores, level: float = 0.95) -> Interval:
    """Student's t interval of the mean of independent scores.

    Arguments:
        scores: one per episode.
        level: of confidence, in (0, 1).

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


def paired_difference(a: Scores, b: Scores, level: float = 0.95, *, ranks: bool = True) -> Paired:
    """Compare two methods on the same episodes.

    Arguments:
        a, b: scores, episode by episode.
        level: of the interval.
        ranks: also do the signed-rank test.

    Raises:
        ValueError: they are of different lengths, empty, or not finite.
    """
    from scipy.special import stdtr

    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.shape != y.shape:
        raise ValueError(f"paired scores have to be of one length, not {len(x)} and {len(y)}")
    # Without its last bits: equal differences stay equal, so ties are ties.
    difference = np.round(x - y, 14)
    interval = student_interval(difference, level)
    p_t = p_wilcoxon = effect = None
    if interval.varies and interval.sd:
        effect = interval.mean / interval.sd
        p_t = 2 * float(stdtr(interval.n - 1, -abs(effect) * math.sqrt(interval.n)))
        p_wilcoxon = _signed_ranks(difference) if ranks else None
    return Paired(
        interval.mean,
        interval.half_width,
        interval.low,
        interval.high,
        p_t,
        p_wilcoxon,
        effect,
        interval.n,
        interval.varies,
    )


def _signed_ranks(difference: npt.NDArray[np.float64]) -> float:
    from scipy.stats import wilcoxon

    return float(wilcoxon(difference).pvalue)
