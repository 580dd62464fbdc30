"""Intervals that say what they cover, beside the Student one of :mod:`.statistics`.

What varies and what is fixed in each is told by :func:`what_it_covers` in a sentence, and in
docs/statistics.md at length, with the coverage that simulations found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from fewshot_bench.errors import UnknownName
from fewshot_bench.results.stats.classes import FEW_CLASSES, class_interval
from fewshot_bench.results.stats.over_seeds import (
    detectable_over_seeds,
    hierarchical_interval,
    paired_over_seeds,
    seeds_interval,
)
from fewshot_bench.results.stats.power import detectable_difference, episodes_needed, paired_power
from fewshot_bench.results.stats.tests import Interval, Scores, checked, student_interval

__all__ = [
    "INTERVALS",
    "UNEVEN",
    "bootstrap_interval",
    "class_interval",
    "detectable_difference",
    "detectable_over_seeds",
    "episodes_needed",
    "few_classes",
    "hierarchical_interval",
    "holm",
    "paired_over_seeds",
    "paired_power",
    "seeds_interval",
    "what_it_covers",
]


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
UNEVEN = ("bca", "classes")  # their ends lie unevenly about the mean: ± would not tell them
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


def few_classes(classes: Sequence[int], level: float) -> str:
    """How many classes an interval over classes rests on, and what few of them mean: a sentence.

    Arguments:
        classes: their numbers in the cells of a table, one or more.
        level: of confidence, in (0, 1).
    """
    few, many = min(classes), max(classes)
    count = f"{few}" if few == many else f"{few} to {many}"
    if few >= FEW_CLASSES:
        return f"It rests on {count} classes."
    return (
        f"It rests on {count} classes: with fewer than {FEW_CLASSES} it covers less than "
        f"{100 * level:g} % if a few classes are far harder or easier than the rest."
    )


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
