"""Many tests at once, and how many episodes a comparison needs."""

from __future__ import annotations

import math
from collections.abc import Sequence


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for their number (Holm, Scandinavian Journal of Statistics 1979).

    A None is no test: it stays None and does not count.
    """
    present = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(present):
        largest = max(largest, min(1.0, p * (len(present) - rank)))
        corrected[i] = largest
    return corrected


def power_of(difference: float, sd: float, n: int, alpha: float = 0.05) -> float:
    """Power of the two-sided paired t test to find a difference in its own direction.

    Arguments:
        difference: the true one.
        sd: of the differences of single episodes.
        n: episodes, at least 2.
        alpha: level of the test.
    """
    from scipy.special import nctdtr, stdtrit

    critical = float(stdtrit(n - 1, 1 - alpha / 2))
    shift = abs(difference) / sd * math.sqrt(n)
    if shift > 30:  # where the series of nctdtr gives up, nothing is missed
        return 1.0
    # Rejections in the wrong direction count for nothing: to find the opposite is no finding.
    return float(1 - nctdtr(n - 1, shift, critical))


def detectable_difference(sd: float, n: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """The true difference that n episodes would find with this power (paired t test).

    Arguments:
        sd: of the differences of single episodes; 0: any difference would be found.
        n: episodes.
        power, alpha: of the test.

    Raises:
        ValueError: fewer than two episodes, or a power or level outside (0, 1).
    """
    from scipy.optimize import brentq

    _check(n, power, alpha)
    if sd == 0:
        return 0.0
    unit = sd / math.sqrt(n)

    def missing(difference: float) -> float:
        return power_of(difference, sd, n, alpha) - power

    return float(brentq(missing, 0, 29 * unit, xtol=1e-12 * unit)) if missing(0) < 0 else 0.0


def episodes_needed(sd: float, difference: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """The fewest episodes with which a paired t test finds a true difference with this power.

    Raises:
        ValueError: the difference is 0, or a power or level outside (0, 1).
    """
    if difference == 0:
        raise ValueError("a difference of 0 is never found")
    _check(2, power, alpha)
    low, high = 1, 2
    while power_of(difference, sd, high, alpha) < power:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if power_of(difference, sd, middle, alpha) < power:
            low = middle
        else:
            high = middle
    return high


def _check(n: int, power: float, alpha: float) -> None:
    if n < 2 or not 0 < power < 1 or not 0 < alpha < 1:
        raise ValueError("at least two episodes, and a power and level between 0 and 1 are needed")
