"""Intervals over training seeds: alone, and together with the episodes that all seeds share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fewshot_bench.results.stats.roots import root
from fewshot_bench.results.stats.tests import Interval, Paired, Scores, checked, student_interval

LEAST = -140.0  # log of the smallest tail that is looked for, 1e-61; quantiles overflow far below
Grid = Sequence[Sequence[float]] | npt.NDArray[np.float64]


def seeds_interval(means: Scores, level: float = 0.95) -> Interval:
    """Student's t interval over training seeds alone; one seed has no width.

    Arguments:
        means: [S], the accuracy of each seed's run, all on the same test episodes.
        level: of confidence.

    Raises:
        ValueError: there is no mean, or one is not finite.
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
        level: of confidence.

    Returns:
        ``n`` counts all S times E scores, ``sd`` is of one of them (√ of the three variances).
        ``half_width`` is None for one seed or one episode.

    Raises:
        ValueError: the scores are no such table, or one is not finite.
    """
    layout = _two_way(scores)
    half = layout.half_width(level)
    low = None if half is None else layout.mean - half
    high = None if half is None else layout.mean + half
    return Interval(layout.mean, half, low, high, layout.sd, layout.n, layout.varies)


def paired_over_seeds(a: Grid, b: Grid, level: float = 0.95) -> Paired:
    """Compare two methods, not two trainings: several seeds of each on the same episodes.

    The differences, seed s of ``a`` minus seed s of ``b``, take the place of the scores in
    :func:`hierarchical_interval`; ``p_t`` is one minus the level at which that interval begins to
    hold 0. No signed-rank test covers seeds and episodes, so ``p_wilcoxon`` is None.

    Arguments:
        a, b: [S, E], a row per seed, all rows over the same episodes.
        level: of the interval.

    Returns:
        ``effect_size`` is the mean difference over the standard deviation of one difference, of
        one seed on one episode; ``n`` counts episodes. With one seed only the difference is told.

    Raises:
        ValueError: the shapes differ or are no tables, or a score is not finite.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.shape != y.shape:
        raise ValueError(f"paired scores have to be of one shape, not {x.shape} and {y.shape}")
    layout = _two_way(x - y)
    half, mean = layout.half_width(level), layout.mean
    p_t = effect = None
    if half is not None and layout.varies and layout.sd:
        p_t, effect = layout.p_value(), mean / layout.sd
    low = None if half is None else mean - half
    high = None if half is None else mean + half
    return Paired(mean, half, low, high, p_t, None, effect, x.shape[1], layout.varies)


def detectable_over_seeds(a: Grid, b: Grid, power: float = 0.8, alpha: float = 0.05) -> float:
    """About the true difference that :func:`paired_over_seeds` would find with this power.

    It is the half width at the test's threshold plus that of a one-sided interval of level
    ``power``, both with the variances at hand: the usual sum of two quantiles (Cohen 1988). Few
    seeds tell their variance badly, and so this.

    Arguments:
        a, b: [S, E], at least two seeds and episodes, as in :func:`paired_over_seeds`.
        power: chance to find it.
        alpha: level of the two-sided test.

    Raises:
        ValueError: as :func:`paired_over_seeds`, or there is a single seed or episode.
    """
    layout = _two_way(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64))
    if layout.seeds == 1 or layout.episodes == 1:
        raise ValueError("a single seed or episode has no test")
    return layout._half(alpha / 2) + layout._half(1 - power)


@dataclass(frozen=True)
class _TwoWay:
    """Seeds by episodes: the mean, and the two parts of its variance."""

    mean: float
    seeds: int
    episodes: int
    of_seeds: float
    of_episodes: float
    sd: float | None
    varies: bool

    @property
    def n(self) -> int:
        return self.seeds * self.episodes

    def half_width(self, level: float) -> float | None:
        if self.seeds == 1 or self.episodes == 1:
            return None
        return self._half(0.5 - level / 2)

    def p_value(self) -> float:
        """Twice the tail at which the half width is the distance of the mean from 0."""
        distance = abs(self.mean)
        if distance == 0:
            return 1.0
        short = lambda log: self._half(math.exp(log)) - distance  # noqa: E731
        if short(LEAST) < 0:
            return 2 * math.exp(LEAST)
        return 2 * math.exp(root(short, LEAST, math.log(0.5)))

    def _half(self, tail: float) -> float:
        from scipy.special import stdtrit

        t_seeds, t_episodes = stdtrit((self.seeds - 1, self.episodes - 1), tail)
        return math.sqrt(t_seeds**2 * self.of_seeds + t_episodes**2 * self.of_episodes)


def _two_way(scores: Grid) -> _TwoWay:
    """The layout of scores [S, E].

    Raises:
        ValueError: they are no such table, or one is not finite.
    """
    table = np.asarray(scores, dtype=np.float64).round(14)
    if table.ndim != 2:
        raise ValueError(f"scores of seeds and episodes are a table [S, E], not {table.shape}")
    checked(table.ravel())
    seeds, episodes = table.shape
    mean, by_seed, by_episode = float(table.mean()), table.mean(axis=1), table.mean(axis=0)
    varies = bool((table != table[0, 0]).any())
    if seeds == 1 or episodes == 1 or not varies:
        sd = 0.0 if not varies and table.size > 1 else None
        return _TwoWay(mean, seeds, episodes, 0.0, 0.0, sd, varies)
    rest = table - by_seed[:, None] - by_episode + mean
    of_rest = float((rest**2).sum()) / ((seeds - 1) * (episodes - 1)) / table.size
    of_seeds = float(by_seed.var(ddof=1)) / seeds
    # The rest is in both; the variance of the mean is at least the rest's part.
    of_episodes = float(by_episode.var(ddof=1)) / episodes - of_rest
    of_episodes = max(of_episodes, of_rest - of_seeds, 0.0)
    # One score: the rest, and what a seed and an episode add to it, none of them under 0.
    seed = max(of_seeds - of_rest, 0.0) * seeds
    sd = math.sqrt(of_rest * table.size + seed + of_episodes * episodes)
    return _TwoWay(mean, seeds, episodes, of_seeds, of_episodes, sd, True)
