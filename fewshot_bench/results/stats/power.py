"""How small a difference a paired comparison can find, and how many episodes one needs.

Everything is about the two-sided paired t test. Its power at n episodes, where the differences have
mean d and standard deviation s, is the chance that a noncentral t variable with n - 1 degrees of
freedom and noncentrality d √n / s lies beyond the critical values (Cohen, "Statistical Power
Analysis for the Behavioral Sciences", 1988, chapter 2).
"""

from __future__ import annotations

import math

from fewshot_bench.results.stats.roots import root

MOST = 10**9  # episodes; a comparison that needs more is not to be had


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

    _check(sd, alpha)
    if n < 2:
        raise ValueError(f"a paired test needs at least 2 episodes, not {n}")
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
    """The smallest true difference that a paired t test finds with this power.

    Arguments:
        sd: standard deviation of the per-episode differences; the result has its unit.
        n: episodes, at least 2.
        power: chance to find it, in (alpha, 1).
        alpha: level of the two-sided test.

    Raises:
        ValueError: an argument is out of range.
    """
    _check(sd, alpha, power)
    if n < 2:
        raise ValueError(f"a paired test needs at least 2 episodes, not {n}")
    if sd == 0:
        return 0.0
    high = 1.0
    while paired_power(1.0, high, n, alpha) < power:
        high *= 2
    missing = lambda d: paired_power(1.0, d, n, alpha) - power  # noqa: E731
    return sd * root(missing, 0.0, high)


def episodes_needed(sd: float, difference: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """The smallest number of episodes at which the paired t test finds a difference.

    Arguments:
        sd: standard deviation of the per-episode differences.
        difference: the true mean difference to find, over 0, in the unit of ``sd``.
        power: chance to find it, in (alpha, 1).
        alpha: level of the two-sided test.

    Raises:
        ValueError: an argument is out of range, or over a billion episodes are needed.
    """
    _check(sd, alpha, power)
    if not (difference > 0 and math.isfinite(difference)):
        raise ValueError(f"the difference to find has to be over 0, not {difference}")
    low, high = 1, 2  # power is not enough at low (one episode has no test)
    while paired_power(sd, difference, high, alpha) < power:
        low, high = high, 2 * high
        if high > MOST:
            raise ValueError("more than a billion episodes are needed")
    while high - low > 1:
        middle = (low + high) // 2
        enough = paired_power(sd, difference, middle, alpha) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high


def _check(sd: float, alpha: float, power: float | None = None) -> None:
    if not (sd >= 0 and math.isfinite(sd)):
        raise ValueError(f"a standard deviation is at least 0, not {sd}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha has to lie between 0 and 1, not {alpha}")
    if power is not None and not alpha < power < 1:
        raise ValueError(f"the power has to lie between alpha ({alpha:g}) and 1, not {power}")
