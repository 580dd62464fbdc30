"""An interval for new classes, whose clusters are the classes of the episodes; and how evenly
the classes of a split fill the episodes.

An episode has a place for each of its classes. Where some classes fill more places than others, the
accuracy is about those more than about the rest.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fewshot_bench.results.stats.intervals import Array, Interval, Scores, checked, student_interval

ClassIds = Sequence[Sequence[int]] | npt.NDArray[np.integer]

NODES = 1001  # of the integral over a chi-squared variable
FARTHEST = 1e-140  # its tails that are left out
TINY = 1e-9
FEW_CLASSES = 100  # with fewer it covers less than its level if some are far harder than the rest
FEWER = 0.8  # of the effective number that equal chances would leave: then the use is uneven


def class_interval(
    scores: Scores, class_ids: ClassIds, level: float = 0.95, *, symmetric: bool = False
) -> Interval:
    """Interval of the mean for a claim about new classes.

    An episode belongs to all its classes at once, so the clusters cross. A score is a mean, plus an
    effect of each class in the episode, plus a rest: the first order of Hoeffding's decomposition
    (Annals of Mathematical Statistics 19, 1948). The variances of effect and rest follow from two
    sums of squares, of the scores and of the classes' totals, and the uncertainty of the former is
    averaged over as in Fisher's solution for two variances (Annals of Eugenics 6, 1935; Weerahandi,
    JASA 88, 1993).

    A few classes that are far harder than the rest skew the mean, and Hall's cubic transformation
    (JRSS B 54, 1992) moves the ends by its skewness. Estimated from few classes that is uncertain,
    so it never shortens an end. docs/statistics.md has the derivation and the coverage.

    Arguments:
        scores: [E], one per episode; or the differences of two methods on the same episodes.
        class_ids: [E, way]. Classes that share images (turned drawings) should share a number.
        level: confidence level, in (0, 1).
        symmetric: without Hall's transformation.

    Returns:
        ``half_width`` is half the distance of the ends, which lie unevenly about the mean; None if
        all episodes have the same classes. ``clusters`` is the number of classes.

    Raises:
        ValueError: there is no score, one is not finite, or the shapes do not fit.
    """
    values, ids = np.round(checked(scores), 14), np.asarray(class_ids)
    if ids.ndim != 2 or len(ids) != len(values):
        raise ValueError(f"{len(values)} scores need class ids [{len(values)}, way]")
    plain = replace(student_interval(values, level), clusters=len(np.unique(ids)))
    if not plain.varies:
        return plain
    design = _Design(ids)
    if design.moments[1] <= TINY * ids.size:
        return replace(plain, half_width=None, low=None, high=None)
    if design.distinct <= TINY:
        return plain  # no class comes twice: the episodes are independent
    half = _half_width(*design.variances(values), len(values) - 1, level)
    below, above = (half, half) if symmetric else _moved(half, *design.spread(values))
    low, high = plain.mean - below, plain.mean + above
    return replace(plain, half_width=(high - low) / 2, low=low, high=high)


class _Design:
    """Which classes are in which episodes, M [E, C], and what follows from it.

    ``uses`` [C] are the episodes of each class, and ``moments`` p_0 to p_4, p_k the sum of the k-th
    powers of the E - 1 eigenvalues of M Mᵀ after centering over episodes; those over 0 are the
    eigenvalues of H [C, C] = Mᵀ (centered M). ``cubes`` are the sums of the cubes of the elements
    of H, of the centered M, and of what centers over episodes, I - 1/E.
    """

    def __init__(self, ids: npt.NDArray[np.integer]) -> None:
        self.episodes = len(ids)
        self.code = np.unique(ids, return_inverse=True)[1].reshape(ids.shape)
        classes = int(self.code.max()) + 1
        self.uses = uses = np.bincount(self.code.ravel()).astype(np.float64)
        pairs = (self.code[:, :, None] * classes + self.code[:, None, :]).ravel()
        together = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
        h = together - np.outer(uses, uses) / len(ids)
        square = h @ h
        sums = (h.trace(), square.trace(), (h * square).sum(), (square**2).sum())
        self.moments = (len(ids) - 1.0, *map(float, sums))
        share = uses / len(ids)
        self.cubes = (
            float((h**3).sum()),
            float(uses @ ((1 - share) * (1 - 2 * share))),
            (len(ids) - 1) * (len(ids) - 2) / len(ids),
        )

    @property
    def distinct(self) -> float:
        """How far the eigenvalues differ: 0 if effect and rest cannot be separated."""
        p = self.moments
        return 1 - p[1] ** 2 / (p[0] * p[2])

    def variances(self, values: Array) -> tuple[Array, Array]:
        """What the variance of the mean of scores [E] may be [K], and weights [K] of sum 1.

        With g the variance of a class's effect and s of the rest, the scores' sum of squares Q0 is
        expected to be g p_1 + s p_0 and that of the classes' totals, Q1, to be g p_2 + s p_1.
        """
        p = self.moments
        rest, totals = self._centered(values)
        q0, q1 = float(rest @ rest), float(totals @ totals)
        g, s = map(float, self._solved(q0, np.array(q1)))
        # Degrees of freedom of Q1 by its first two moments (Satterthwaite, Biometrics 2, 1946).
        freedom = (g * p[2] + s * p[1]) ** 2 / (g * g * p[4] + 2 * g * s * p[3] + s * s * p[2])
        factor, weights = _factors(freedom)
        return self._variance(*self._solved(q0, q1 * factor)), weights

    def spread(self, values: Array) -> tuple[float, float]:
        """Standard deviation and skewness of the mean of scores [E], as estimated.

        With γ the third moment of a class's effect and ρ that of the rest, the sum of the cubes of
        the classes' totals is expected to be γ a + ρ b and that of the scores γ b + ρ d, with a, b
        and d of ``cubes``; the mean's third moment is γ Σ n_c³ / E³ + ρ / E².
        """
        (a, b, d), episodes = self.cubes, self.episodes
        rest, totals = self._centered(values)
        g, s = map(float, self._solved(float(rest @ rest), np.array(totals @ totals)))
        variance = self._variance(g, s)
        determinant = a * d - b * b
        if variance <= 0 or determinant <= TINY * abs(a) * d:
            return math.sqrt(variance), 0.0
        of_totals, of_scores = float((totals**3).sum()), float((rest**3).sum())
        third_g = _possible((of_totals * d - of_scores * b) / determinant, g, len(self.uses))
        third_s = _possible((of_scores * a - of_totals * b) / determinant, s, episodes)
        third = (third_g * float((self.uses**3).sum()) / episodes + third_s) / episodes**2
        return math.sqrt(variance), third / variance**1.5

    def _centered(self, values: Array) -> tuple[Array, Array]:
        """Scores [E] less their mean, and their sum over the episodes of each class [C]."""
        rest = values - values.mean()
        weights = np.repeat(rest, self.code.shape[1])
        return rest, np.bincount(self.code.ravel(), weights=weights).astype(np.float64)

    def _solved(self, q0: float, q1: Array) -> tuple[Array, Array]:
        """g and s from the two sums of squares; not under 0."""
        p = self.moments
        g = np.maximum((q1 - p[1] / p[0] * q0) / (p[2] * self.distinct), 0.0)
        return g, np.maximum((q0 - g * p[1]) / p[0], 0.0)

    def _variance(self, g: Any, s: Any) -> Any:
        """The variance of the mean."""
        return (g * float(self.uses @ self.uses) / self.episodes + s) / self.episodes


def _possible(third: float, variance: float, n: int) -> float:
    """A third moment, within what n values of this variance can have at most (unbiased k_3)."""
    most = math.sqrt(n) * variance**1.5
    return min(max(third, -most), most)


def _moved(half: float, deviation: float, skewness: float) -> tuple[float, float]:
    """Distances of the lower and the upper end from the mean, from those of a symmetric interval.

    Of T = (mean - θ) / deviation, Hall's T + βT²/3 + β²T³/27 + β/6 has lost its skewness β. It
    grows with T, so ±half / deviation can be turned back. An end never comes nearer to the mean.
    """
    if deviation <= 0 or abs(skewness) < TINY:
        return half, half

    def turned_back(q: float) -> float:
        cube = 1 + skewness * (q - skewness / 6)
        return 3 * (float(np.cbrt(cube)) - 1) / skewness

    q = half / deviation
    return max(half, deviation * turned_back(q)), max(half, -deviation * turned_back(-q))


def _factors(freedom: float) -> tuple[Array, Array]:
    """Values of ν / U [K], weights [K]: trapezoidal rule in log U, U chi-squared of ν degrees."""
    from scipy.special import gammainccinv, gammaincinv, gammaln

    half = freedom / 2
    low = max(float(gammaincinv(half, FARTHEST)), np.finfo(np.float64).tiny)
    log = np.linspace(math.log(low), math.log(gammainccinv(half, FARTHEST)), NODES)
    weights = np.exp(half * log - np.exp(log) - gammaln(half))
    return half / np.exp(log), weights / weights.sum()


def _half_width(variances: Array, weights: Array, freedom: float, level: float) -> float:
    """Distance from the mean that it passes with a chance of 1 - level, over all variances."""
    from scipy.optimize import brentq
    from scipy.special import stdtr

    deviations = np.sqrt(variances)

    def excess(distance: float) -> float:
        return float(2 * weights @ stdtr(freedom, -distance / deviations)) - (1 - level)

    high = 1 / math.sqrt(float(weights @ (1 / variances)))
    while excess(high) > 0:
        high *= 2
    return float(brentq(excess, 0.0, high, xtol=1e-13 * high, rtol=1e-13))


def few_classes(classes: Sequence[int], level: float) -> str:
    """How many classes the intervals of some cells rest on, and what few of them mean."""
    few, many = min(classes), max(classes)
    words = f"It rests on {few if few == many else f'{few} to {many}'} classes"
    if few < FEW_CLASSES:
        words += f": with fewer than {FEW_CLASSES} it covers less than {100 * level:g} %"
        words += " if a few classes are far harder or easier than the rest"
    return f"{words}."


def class_use(
    class_ids: npt.NDArray[np.integer], group_count: npt.NDArray[np.integer]
) -> dict[str, Any]:
    """The record's ``class_use``: how often the classes of a split are in some episodes.

    Arguments:
        class_ids: [E, way], of the episodes.
        group_count: how many classes each group has, group after group; classes of one group share
            their images (turns of a drawing) and count as one here.

    Returns:
        ``effective`` is 1 over the sum of the squared shares of places (Simpson, Nature 163, 1949;
        Hill, Ecology 54, 1973); ``uneven``, whether that is under 0.8 of what equal chances leave.
    """
    group = np.repeat(np.arange(len(group_count)), group_count)
    uses = np.bincount(group[class_ids].ravel(), minlength=len(group_count))
    places, classes = int(uses.sum()), len(uses)
    top = math.ceil(classes / 4)
    effective = float(places**2 / (uses.astype(np.float64) ** 2).sum())
    by_chance = places / (1 + (places - 1) / classes)
    return {
        "classes": classes,
        "used": int((uses > 0).sum()),
        "effective": effective,
        "top": top,
        "top_share": float(np.sort(uses)[-top:].sum() / places),
        "uneven": effective < FEWER * by_chance,
    }


def use_words(use: Mapping[str, Any], sampling: str) -> str | None:
    """A sentence on ``class_use`` of a record's ``test`` if it is uneven; else None."""
    if not use["uneven"]:
        return None
    advice = " (--sampling open-balanced uses all equally)" if sampling == "open" else ""
    return (
        f"The test's episodes use the classes unevenly: {use['top']} of {use['classes']} fill "
        f"{100 * use['top_share']:.0f} % of the places, as if there were "
        f"{use['effective']:.0f} classes; the accuracy is about those more than about the rest"
        f"{advice}."
    )
