"""Paired tests of two methods on the same episodes, corrections for many of them, and power."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fewshot_bench.results.stats.intervals import (
    Array,
    Grid,
    Interval,
    Scores,
    TwoWay,
    student_interval,
)

SMALLEST = -140.0  # log of the smallest tail that is looked for, 1e-61; quantiles overflow below
MOST = 10**9  # episodes; a comparison that needs more is out of reach


@dataclass(frozen=True)
class Paired(Interval):
    """The difference a - b of two methods on the same episodes: its interval, and tests.

    Arguments:
        p_t: two-sided paired t test; None if the differences do not vary.
        p_wilcoxon: two-sided Wilcoxon signed-rank test; None likewise, or if it was not asked for.
        effect_size: mean difference over its standard deviation (Cohen's d_z); None likewise.
    """

    p_t: float | None = None
    p_wilcoxon: float | None = None
    effect_size: float | None = None

    @property
    def difference(self) -> float:
        """Mean of the differences."""
        return self.mean


def _differences(a: Scores | Grid, b: Scores | Grid) -> Array:
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.shape != y.shape:
        raise ValueError(f"paired scores have to be of one shape, got {x.shape} and {y.shape}")
    return x - y


def paired_difference(a: Scores, b: Scores, level: float = 0.95, *, ranks: bool = True) -> Paired:
    """Compare two methods by scores [E] on the same episodes.

    ``ranks``: also do the signed-rank test. ValueError: the scores are of different lengths, empty,
    or not finite.
    """
    from scipy.special import stdtr

    # Without its last bits: equal differences stay equal, so ties are ties.
    difference = np.round(_differences(a, b), 14)
    own = student_interval(difference, level)
    if not (own.varies and own.sd):
        return Paired(**vars(own))
    effect, p_wilcoxon = own.mean / own.sd, None
    p_t = 2 * float(stdtr(own.n - 1, -abs(effect) * math.sqrt(own.n)))
    if ranks:
        from scipy.stats import wilcoxon

        p_wilcoxon = float(wilcoxon(difference).pvalue)
    return Paired(**vars(own), p_t=p_t, p_wilcoxon=p_wilcoxon, effect_size=effect)


def paired_over_seeds(a: Grid, b: Grid, level: float = 0.95) -> Paired:
    """Compare two methods, not two trainings: several seeds of each on the same episodes.

    The differences, seed s of ``a`` minus seed s of ``b``, take the place of the scores in
    :func:`hierarchical_interval`; ``p_t`` is one minus the level at which that interval begins to
    hold 0. No signed-rank test covers seeds and episodes, so ``p_wilcoxon`` is None.

    Arguments:
        a, b: [S, E], a row per seed, all rows over the same episodes.

    Returns:
        ``effect_size`` is the mean difference over the standard deviation of one difference, of
        one seed on one episode; ``n`` counts episodes. With one seed there is only the difference.

    Raises:
        ValueError: the shapes differ or are no tables, or a score is not finite.
    """
    layout = TwoWay(_differences(a, b))
    own = replace(layout.interval(level), n=layout.episodes)
    if own.half_width is None or not (own.varies and own.sd):
        return Paired(**vars(own))
    return Paired(**vars(own), p_t=_p_value(layout), effect_size=own.mean / own.sd)


def _p_value(layout: TwoWay) -> float:
    """Twice the tail at which the half width is the distance of the mean from 0."""
    from scipy.optimize import brentq

    distance = abs(layout.mean)

    def excess(log: float) -> float:
        return layout.half_width(math.exp(log)) - distance

    if distance == 0:
        return 1.0
    if excess(SMALLEST) < 0:
        return 2 * math.exp(SMALLEST)
    return 2 * math.exp(brentq(excess, SMALLEST, math.log(0.5), xtol=1e-13))


def detectable_over_seeds(a: Grid, b: Grid, power: float = 0.8, alpha: float = 0.05) -> float:
    """About the true difference that :func:`paired_over_seeds` would find with this power.

    It is the half width at the test's threshold plus that of a one-sided interval of level
    ``power``, both with the variances at hand: the usual sum of two quantiles (Cohen 1988). Few
    seeds give an uncertain variance, and so this.

    Arguments:
        a, b: [S, E], at least two seeds and episodes.
        power: chance to find it.
        alpha: level of the two-sided test.

    Raises:
        ValueError: as :func:`paired_over_seeds`, or there is a single seed or episode.
    """
    layout = TwoWay(_differences(a, b))
    if layout.seeds == 1 or layout.episodes == 1:
        raise ValueError("a single seed or episode has no test")
    return layout.half_width(alpha / 2) + layout.half_width(1 - power)


def holm(p_values: Sequence[float | None] | Array) -> Array:
    """p values, in the same order, corrected for their number by Holm's step-down method.

    The family-wise error stays under the level whatever the dependence of the tests (Holm,
    Scandinavian Journal of Statistics 6, 1979). None or NaN is a test that could not be done: it
    does not count, and stays NaN.
    """
    corrected = np.array(p_values, dtype=np.float64)
    order = np.argsort(corrected)[: np.count_nonzero(~np.isnan(corrected))]  # NaN is last
    scaled = corrected[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.maximum.accumulate(np.minimum(scaled, 1))
    return corrected


# --- Power of the two-sided paired t test. At n episodes, where the differences have mean d and
# standard deviation s, it is the chance that a noncentral t variable with n - 1 degrees of freedom
# and noncentrality d √n / s lies beyond the critical values (Cohen, "Statistical Power Analysis
# for the Behavioral Sciences", 1988, chapter 2).


def paired_power(sd: float, difference: float, n: int, alpha: float = 0.05) -> float:
    """Chance that the paired t test finds a difference.

    Arguments:
        sd: standard deviation of the per-episode differences, over 0.
        difference: their true mean, in the unit of ``sd``.
        n: episodes, at least 2.
        alpha: level of the two-sided test.

    Raises:
        ValueError: an argument is out of range.
    """
    from scipy.special import nctdtr, stdtrit

    _check(sd, alpha, n=n)
    if sd == 0:
        return 1.0 if difference else alpha
    critical = float(stdtrit(n - 1, 1 - alpha / 2))
    noncentral = abs(difference) / sd * math.sqrt(n)
    # Where next to nothing is left of a tail, scipy's function may underflow to NaN: on the near
    # side at a large noncentrality, on the far side from a small alpha on.
    missed = float(nctdtr(n - 1, noncentral, critical))
    far = float(nctdtr(n - 1, noncentral, -critical))
    return 1.0 if math.isnan(missed) else 1 - missed + (0.0 if math.isnan(far) else far)


def detectable_difference(sd: float, n: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true difference, in the unit of ``sd``, that the test finds with this power.

    ``power`` is in (alpha, 1); the other arguments and errors are those of :func:`paired_power`.
    """
    from scipy.optimize import brentq

    _check(sd, alpha, power, n)
    if sd == 0:
        return 0.0

    def lacking(d: float) -> float:
        return paired_power(1.0, d, n, alpha) - power

    high = 1.0
    while lacking(high) < 0:
        high *= 2
    return sd * float(brentq(lacking, 0.0, high, xtol=1e-14, rtol=1e-14))


def episodes_needed(sd: float, difference: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """The smallest number of episodes at which the test finds a true difference over 0.

    The arguments are those of :func:`detectable_difference`. Raises ValueError if one is out of
    range, or over a billion episodes are needed.
    """
    _check(sd, alpha, power)
    if not (difference > 0 and math.isfinite(difference)):
        raise ValueError(f"the difference to find has to be over 0, not {difference}")

    def enough(n: int) -> bool:
        return paired_power(sd, difference, n, alpha) >= power

    high = 2
    while not enough(high):
        high *= 2
        if high > MOST:
            raise ValueError("more than a billion episodes are needed")
    return bisect_left(range(high), True, lo=high // 2 + 1, key=enough)


def _check(sd: float, alpha: float, power: float | None = None, n: int = 2) -> None:
    if not (sd >= 0 and math.isfinite(sd)):
        raise ValueError(f"a standard deviation is at least 0, not {sd}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha has to lie between 0 and 1, not {alpha}")
    if power is not None and not alpha < power < 1:
        raise ValueError(f"the power has to lie between alpha ({alpha:g}) and 1, not {power}")
    if n < 2:
        raise ValueError(f"a paired test needs at least 2 episodes, not {n}")


# --- Paired tests of all pairs of a column at once: a thousand cells have half a million of them.
# They are those of paired_difference and paired_over_seeds, with sums of squares of differences
# from products: |x - y|² = x·x + y·y - 2 x·y.

Indices = npt.NDArray[np.intp]
# Variances of differences below this are rounding: one query of 1,000 in one of 100,000 episodes
# makes 1e-11.
ROUNDING = 1e-13
# Tails of the p values between which those over seeds are interpolated (to 4e-5 of the value).
LEAST, POINTS = 1e-30, 4096


def best_and_tied(scores: Sequence[Array], alpha: float) -> tuple[int, list[int]]:
    """The method of the highest accuracy, and those not significantly different from it.

    ``scores``: [seeds, episodes] of each method of a column, at least two. ``alpha``: family-wise
    error of Holm's correction over all pairs.
    """
    one, other = np.triu_indices(len(scores), 1)
    rejected = holm(all_p_values(scores, one, other)) < alpha
    best = int(np.argmax([own.mean(0).mean() for own in scores]))
    # Of each pair with the best one, the other.
    tied = (one + other - best)[((one == best) | (other == best)) & ~rejected]
    return best, sorted(tied.tolist())


def all_p_values(scores: Sequence[Array], one: Indices, other: Indices) -> Array:
    """The p value of each pair; NaN where the difference does not vary."""
    if scores[0].shape[1] < 2:
        return np.full(len(one), math.nan)
    p_values = _over_episodes(np.stack([own.mean(0) for own in scores]), one, other)
    seeds = np.array([len(own) for own in scores])
    several = np.minimum(seeds[one], seeds[other])
    for count in np.unique(several[several > 1]):
        chosen = several == count
        # Pairs of which one has more seeds than this: its first ones, as in a single comparison.
        grids = np.stack([own[:count] if len(own) >= count else own[[0] * count] for own in scores])
        p_values[chosen] = _over_seeds(grids, one[chosen], other[chosen])
    return p_values


def _squares(values: Array, one: Indices, other: Indices) -> Array:
    """Sums of squares of the differences of rows [rows, ...], each less its mean."""
    rest = values.reshape(len(values), -1)
    rest = rest - rest.mean(1, keepdims=True)
    products = rest @ rest.T
    own = np.diag(products)
    return np.maximum(own[one] + own[other] - 2 * products[one, other], 0)


def _over_episodes(scores: Array, one: Indices, other: Indices) -> Array:
    """Paired t tests of rows of [rows, episodes]."""
    from scipy.special import stdtr

    n = scores.shape[1]
    variance = _squares(scores, one, other) / (n - 1)
    variance[variance < ROUNDING] = math.nan
    mean = scores.mean(1)
    return 2 * stdtr(n - 1, -np.abs(mean[one] - mean[other]) / np.sqrt(variance / n))


def _over_seeds(scores: Array, one: Indices, other: Indices) -> Array:
    """Tests over seeds and episodes of rows of [rows, seeds, episodes], as in :class:`TwoWay`.

    Each p value is twice the tail at which √(t²_{S-1} of_seeds + t²_{E-1} of_episodes) is the
    distance of the means.
    """
    from scipy.special import stdtrit

    _, seeds, episodes = scores.shape
    total = _squares(scores, one, other)
    by_seed = _squares(scores.mean(2), one, other)
    by_episode = _squares(scores.mean(1), one, other)
    rest = np.maximum(total - episodes * by_seed - seeds * by_episode, 0)
    of_rest = rest / ((seeds - 1) * (episodes - 1) * seeds * episodes)
    of_seeds = by_seed / ((seeds - 1) * seeds)
    of_episodes = by_episode / ((episodes - 1) * episodes) - of_rest
    of_episodes = np.maximum(of_episodes, np.maximum(of_rest - of_seeds, 0))
    mean = scores.mean((1, 2))
    distance = mean[one] - mean[other]
    tails = np.geomspace(LEAST, 0.5, POINTS)
    t_seeds, t_episodes = stdtrit(seeds - 1, tails) ** 2, stdtrit(episodes - 1, tails) ** 2

    def over(at: Indices) -> Array:
        """How far the squared half width is over the squared distance; falls with the tail."""
        return t_seeds[at] * of_seeds + t_episodes[at] * of_episodes - distance**2

    low = np.zeros(len(distance), dtype=np.intp)
    high = np.full(len(distance), POINTS - 1)
    for _ in range(POINTS.bit_length()):
        middle = (low + high) // 2
        is_over = over(middle) > 0
        low, high = np.where(is_over, middle, low), np.where(is_over, high, middle)
    above, below = over(low), over(high)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.clip(np.nan_to_num(above / (above - below)), 0, 1)
    p: Array = 2 * np.exp(np.log(tails[low]) * (1 - share) + np.log(tails[high]) * share)
    p[total / (seeds * episodes - 1) < ROUNDING] = math.nan
    return p
