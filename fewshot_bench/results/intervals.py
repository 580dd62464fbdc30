"""Intervals that say what they cover, beside the Student one of :mod:`.statistics`.

What varies and what is fixed in each is told by :func:`what_it_covers` in a sentence, and in
docs/statistics.md at length, with the coverage that simulations found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from fewshot_bench.errors import UnknownName
from fewshot_bench.results.over_seeds import (
    hierarchical_interval,
    paired_over_seeds,
    seeds_interval,
)
from fewshot_bench.results.power import detectable_difference, episodes_needed, paired_power
from fewshot_bench.results.statistics import Interval, Scores, checked, student_interval

__all__ = [
    "INTERVALS",
    "bootstrap_interval",
    "class_interval",
    "detectable_difference",
    "episodes_needed",
    "hierarchical_interval",
    "holm",
    "paired_over_seeds",
    "paired_power",
    "seeds_interval",
    "what_it_covers",
]

ClassIds = Sequence[Sequence[int]] | npt.NDArray[np.integer]

INTERVALS: Mapping[str, str] = MappingProxyType(
    {
        "student": "Student's t over episodes",
        "percentile": "percentile bootstrap over episodes",
        "bca": "BCa bootstrap over episodes",
        "classes": "classes as clusters",
        "hierarchical": "training seeds and episodes",
        "seeds": "Student's t over training seeds",
    }
)
_CLOSED = "which episodes were drawn from these test images"
_OPEN = "which images of these test classes came into the test"


def what_it_covers(kind: str, sampling: str) -> str:
    """What varies in an interval and what is fixed: a sentence for the caption of a table.

    Arguments:
        kind: one of ``INTERVALS``.
        sampling: ``"open"`` or ``"closed"``, as the record's ``test`` has it.

    Raises:
        UnknownName: there is no interval of this kind.
    """
    if kind not in INTERVALS:
        raise UnknownName("interval", kind, INTERVALS)
    is_open = sampling == "open"
    drawn = _OPEN if is_open else _CLOSED
    classes = "the classes" if is_open else "the images, their classes"
    if kind == "seeds":
        varies = "the training seed"
        fixed = "the test episodes, their images and classes are fixed"
    elif kind == "classes":
        varies = "which classes and images came into the test, and which episodes were drawn"
        fixed = "the training seed is fixed"
    elif kind == "hierarchical":
        varies = f"the training seed and {drawn}"
        fixed = "the classes are fixed" if is_open else "the images and their classes are fixed"
    else:
        varies, fixed = drawn, f"{classes} and the training seed are fixed"
    return f"It covers {varies}; {fixed}."


def bootstrap_interval(
    scores: Scores,
    level: float = 0.95,
    method: str = "percentile",
    resamples: int = 9999,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of the mean of independent scores (``scipy.stats.bootstrap``).

    Arguments:
        scores: one per episode.
        level: of confidence, in (0, 1).
        method: ``"percentile"``, or ``"BCa"`` (Efron, JASA 82, 1987), which corrects for bias and
            skewness. The ends lie unevenly about the mean; ``half_width`` is half their distance.
        resamples: how many.
        seed: of the resampling, so that the interval repeats.

    Raises:
        ValueError: there is no score, one is not finite, or the method is another.
    """
    values = checked(scores)
    if method.lower() not in ("percentile", "bca"):
        raise ValueError(f"the bootstrap is percentile or BCa, not {method}")
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
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    low, high = float(low), float(high)
    return Interval(mean, (high - low) / 2, low, high, sd, len(values), True)


def class_interval(scores: Scores, class_ids: ClassIds, level: float = 0.95) -> Interval:
    """Interval of the mean for a claim about new classes: the classes are the clusters.

    An episode belongs to all its classes at once, so clusters cross. The model is the first order
    of Hoeffding's decomposition (Annals of Mathematical Statistics 19, 1948): the score of an
    episode is a mean, plus an effect of each of its classes (how hard it is, how much it misleads
    the others, what its images are like), plus a rest. The variances of effect and rest are those
    that give the two sums of squares, over episodes and over the totals of classes, their expected
    values, so they have no bias however few or unevenly used the classes are; degrees of freedom
    by Satterthwaite (Biometrics Bulletin 2, 1946). docs/statistics.md derives it.

    Per-class accuracies would say less: an episode's mean also holds what a class does to others.

    Arguments:
        scores: [E], one per episode; differences of two methods on the same episodes also.
        class_ids: [E, way]. Classes that share images (rotations) should share a number.
        level: of confidence.

    Returns:
        ``half_width`` is None if all episodes have the same classes: nothing tells then.

    Raises:
        ValueError: there is no score, one is not finite, or the shapes do not fit.
    """
    from scipy.special import stdtrit

    values = np.round(checked(scores), 14)
    ids = np.asarray(class_ids)
    if ids.ndim != 2 or len(ids) != len(values):
        raise ValueError(f"{len(values)} scores need class ids [{len(values)}, way]")
    plain = student_interval(values, level)
    if not plain.varies:
        return plain
    variance, freedom = _clustered(values, ids)
    if variance is None:
        return Interval(plain.mean, None, None, None, plain.sd, plain.n, True)
    half = float(stdtrit(freedom, 0.5 + level / 2)) * math.sqrt(variance)
    return Interval(plain.mean, half, plain.mean - half, plain.mean + half, plain.sd, plain.n, True)


def _clustered(
    values: npt.NDArray[np.float64], ids: npt.NDArray[np.integer]
) -> tuple[float | None, float]:
    """Variance of the mean of [E] scores with class ids [E, way], and degrees of freedom.

    With M [E, C] the membership of classes, the covariance of the scores is g M Mᵀ + s I. Centring
    commutes with M Mᵀ under a quadratic form, so all moments are power sums of the eigenvalues of
    H = Mᵀ P M, P the centring matrix: p_k = tr Hᵏ.
    """
    episodes, way = ids.shape
    code = np.unique(ids, return_inverse=True)[1].reshape(ids.shape)
    classes = int(code.max()) + 1
    uses = np.bincount(code.ravel(), minlength=classes).astype(np.float64)
    pairs = (code[:, :, None] * classes + code[:, None, :]).ravel()
    together = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    h = together - np.outer(uses, uses) / episodes
    square = h @ h
    p = [episodes - 1.0, np.trace(h), np.trace(square), (h * square).sum(), (square**2).sum()]
    if p[1] <= 1e-9 * episodes * way:
        return None, 0.0
    rest = values - values.mean()
    totals = np.bincount(code.ravel(), weights=np.repeat(rest, way), minlength=classes)
    q = np.array([rest @ rest, totals @ totals])
    moments = np.array([[p[1], p[0]], [p[2], p[1]]])  # E q = moments @ (g, s)
    of_mean = np.array([uses @ uses / episodes**2, 1 / episodes])
    determinant = p[0] * p[2] - p[1] ** 2
    student = float(q[0] / p[0] / episodes), p[0]
    if determinant <= 1e-9 * p[0] * p[2]:  # no class comes twice: the episodes are independent
        return student
    g, s = np.linalg.solve(moments, q)
    if g <= 0:
        return student
    if s < 0:
        g, s = q[0] / p[1], 0.0
    b, a = np.linalg.solve(moments.T, of_mean)  # variance = a q1 + b q0
    variance = float(of_mean @ (g, s))
    # Of each eigenvalue λ, (a λ + b)(g λ + s) is added: sum and sum of squares over all.
    weight = np.polymul((a, b), (g, s))
    squares = sum(c * p[k] for k, c in enumerate(np.polymul(weight, weight)[::-1]))
    return variance, float(variance**2 / squares)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values corrected for their number by Holm's step-down method.

    The family-wise error stays under the level whatever the dependence of the tests (Holm,
    Scandinavian Journal of Statistics 6, 1979).

    Arguments:
        p_values: one per test; None for a test that could not be done, which does not count.

    Returns:
        In the same order; None stays None.
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        corrected[i] = largest
    return corrected
