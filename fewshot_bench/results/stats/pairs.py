"""Paired tests of all pairs of a column at once: a thousand cells have half a million of them.

They are those of :func:`.statistics.paired_difference` and :func:`.over_seeds.paired_over_seeds`,
with sums of squares of differences from products: |x - y|² = x·x + y·y - 2 x·y.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fewshot_bench.results.comparison import Cell
from fewshot_bench.results.runs import Array

Indices = npt.NDArray[np.intp]
# Variances of differences below this are rounding: one query of 1,000 in one of 100,000 episodes
# makes 1e-11.
ROUNDING = 1e-13
# Tails of the p values between which those over seeds are interpolated (to 4e-5 of the value).
LEAST, POINTS = 1e-30, 4096


def best_and_tied(cells: Sequence[Cell], alpha: float) -> tuple[int, list[int]]:
    """The cell of the highest accuracy, and those that cannot be told from it.

    Arguments:
        cells: of one column, at least two.
        alpha: family-wise error of Holm's correction over all pairs.
    """
    one, other = np.triu_indices(len(cells), 1)
    rejected = _holm(_p_values(cells, one, other), alpha)
    best = max(range(len(cells)), key=lambda i: cells[i].accuracy)
    # Of each pair with the best one, the other.
    tied = (one + other - best)[((one == best) | (other == best)) & ~rejected]
    return best, sorted(tied.tolist())


def _holm(p_values: Array, alpha: float) -> npt.NDArray[np.bool_]:
    """What Holm's step-down method rejects; NaN, a test that could not be done, is never."""
    ordered = np.sort(p_values[~np.isnan(p_values)])
    kept = ordered * np.arange(len(ordered), 0, -1) >= alpha
    first = ordered[np.argmax(kept)] if kept.any() else math.inf
    return np.asarray(p_values < first)


def _p_values(cells: Sequence[Cell], one: Indices, other: Indices) -> Array:
    """The p value of each pair; NaN where the difference does not vary."""
    p_values = _over_episodes(np.stack([cell.scores.mean(0) for cell in cells]), one, other)
    seeds = np.array([len(cell.scores) for cell in cells])
    several = np.minimum(seeds[one], seeds[other])
    for count in np.unique(several[several > 1]):
        chosen = several == count
        # Pairs of cells that have more seeds than this: the first ones, as in differences.pair.
        scores = np.stack(
            [
                cell.scores[:count] if len(cell.scores) >= count else cell.scores[[0] * count]
                for cell in cells
            ]
        )
        p_values[chosen] = _over_seeds(scores, one[chosen], other[chosen])
    return p_values


def _squares(values: Array, one: Indices, other: Indices) -> Array:
    """Sums of squares of the differences of rows [rows, ...], each less its mean."""
    rest = values.reshape(len(values), -1)
    rest = rest - rest.mean(1, keepdims=True)
    products = rest @ rest.T
    own = np.diag(products)
    found: Array = own[one] + own[other] - 2 * products[one, other]
    return np.maximum(found, 0)


def _over_episodes(scores: Array, one: Indices, other: Indices) -> Array:
    """Paired t tests of rows of [rows, episodes]."""
    from scipy.special import stdtr

    n = scores.shape[1]
    if n < 2:
        return np.full(len(one), math.nan)
    variance = _squares(scores, one, other) / (n - 1)
    variance[variance < ROUNDING] = math.nan
    mean = scores.mean(1)
    p: Array = 2 * stdtr(n - 1, -np.abs(mean[one] - mean[other]) / np.sqrt(variance / n))
    return p


def _over_seeds(scores: Array, one: Indices, other: Indices) -> Array:
    """Tests over seeds and episodes of rows of [rows, seeds, episodes]."""
    _, seeds, episodes = scores.shape
    if episodes < 2:
        return np.full(len(one), math.nan)
    total = _squares(scores, one, other)
    by_seed = _squares(scores.mean(2), one, other)
    by_episode = _squares(scores.mean(1), one, other)
    rest = np.maximum(total - episodes * by_seed - seeds * by_episode, 0)
    of_rest = rest / ((seeds - 1) * (episodes - 1) * seeds * episodes)
    of_seeds = by_seed / ((seeds - 1) * seeds)
    of_episodes = by_episode / ((episodes - 1) * episodes) - of_rest
    of_episodes = np.maximum(of_episodes, np.maximum(of_rest - of_seeds, 0))
    mean = scores.mean((1, 2))
    p = _tails(mean[one] - mean[other], seeds, episodes, of_seeds, of_episodes)
    p[total / (seeds * episodes - 1) < ROUNDING] = math.nan
    return p


def _tails(
    distance: Array, seeds: int, episodes: int, of_seeds: Array, of_episodes: Array
) -> Array:
    """Twice the tail at which √(t²_{S-1} of_seeds + t²_{E-1} of_episodes) is the distance."""
    from scipy.special import stdtrit

    tails = np.geomspace(LEAST, 0.5, POINTS)
    t_seeds, t_episodes = stdtrit(seeds - 1, tails) ** 2, stdtrit(episodes - 1, tails) ** 2

    def over(at: Indices) -> Array:
        """How far the squared half width is over the squared distance; falls with the tail."""
        found: Array = t_seeds[at] * of_seeds + t_episodes[at] * of_episodes - distance**2
        return found

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
    return p
