"""Power of the paired t test: against scipy's noncentral t, and what follows from it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fewshot_bench.results.stats import (
    detectable_difference,
    detectable_over_seeds,
    episodes_needed,
    paired_over_seeds,
    paired_power,
)


def by_scipy(sd: float, difference: float, n: int, alpha: float) -> float:
    critical = stats.t.ppf(1 - alpha / 2, n - 1)
    noncentral = difference / sd * math.sqrt(n)
    far = stats.nct.cdf(-critical, n - 1, noncentral)
    return float(stats.nct.sf(critical, n - 1, noncentral) + far)


@pytest.mark.parametrize("n", [2, 10, 600, 100_000])
@pytest.mark.parametrize("effect", [0.0, 0.5, 2.8, 5.0])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_power_is_of_scipys_noncentral_t(n: int, effect: float, alpha: float) -> None:
    difference = effect / math.sqrt(n)
    found = paired_power(1.0, difference, n, alpha)
    assert found == pytest.approx(by_scipy(1.0, difference, n, alpha), abs=1e-9)


def test_a_known_plan() -> None:
    """Cohen's table: 34 pairs find an effect of half a standard deviation at power 0.8."""
    assert episodes_needed(1.0, 0.5) == 34


@given(st.floats(0.01, 1.0), st.floats(0.05, 2.0), st.sampled_from([0.5, 0.8, 0.95]))
@settings(max_examples=40, deadline=None)
def test_the_plan_is_the_smallest_that_is_enough(sd: float, effect: float, power: float) -> None:
    n = episodes_needed(sd, effect * sd, power)
    assert paired_power(sd, effect * sd, n) >= power
    assert n == 2 or paired_power(sd, effect * sd, n - 1) < power


@given(st.floats(0.001, 1.0), st.integers(2, 5000), st.sampled_from([0.1, 0.8, 0.99]))
@settings(max_examples=40, deadline=None)
def test_what_is_detectable_has_the_power(sd: float, n: int, power: float) -> None:
    found = detectable_difference(sd, n, power)
    assert paired_power(sd, found, n) == pytest.approx(power, abs=1e-9)


def test_a_large_difference_is_certain_to_be_found() -> None:
    """Where scipy's functions underflow."""
    for n in (2, 600, 10**6):
        assert paired_power(1e-3, 1e3, n) == pytest.approx(1.0, abs=1e-3)
    assert paired_power(0.0, 0.1, 5) == 1.0
    assert detectable_difference(0.0, 600) == 0.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((-1.0, 0.1, 0.8, 0.05), "standard deviation"),
        ((1.0, 0.0, 0.8, 0.05), "over 0"),
        ((1.0, 0.1, 0.04, 0.05), "between alpha"),
        ((1.0, 0.1, 1.0, 0.05), "between alpha"),
        ((1.0, 0.1, 0.8, 1.5), "alpha has to"),
        ((1.0, 1e-9, 0.8, 0.05), "more than a billion"),
    ],
)
def test_bad_plans_are_refused(arguments: tuple[float, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        episodes_needed(*arguments)


def test_one_episode_has_no_test() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        detectable_difference(1.0, 1)
    with pytest.raises(ValueError, match="at least 2"):
        paired_power(1.0, 1.0, 1)


def test_what_several_seeds_would_have_found_by_hand() -> None:
    # Seeds alone vary: means 0, 1, 2, whose standard error is 1/√3 with two degrees of freedom.
    scores = np.arange(3.0)[:, None] + np.zeros((3, 4))
    error = 1 / math.sqrt(3)
    expected = (stats.t.ppf(0.975, 2) + stats.t.ppf(0.8, 2)) * error
    assert detectable_over_seeds(scores, 0 * scores) == pytest.approx(expected, rel=1e-9)
    with pytest.raises(ValueError, match="single seed or episode"):
        detectable_over_seeds(scores[:1], scores[:1])


def test_what_several_seeds_would_have_found_is_about_right() -> None:
    rng = np.random.default_rng(0)
    shape = (5, 100)
    draws = [
        rng.normal(0, 0.05, (1, shape[1]))
        + rng.normal(0, 0.05, shape)
        + rng.normal(0, 0.005, (5, 1))
        for _ in range(200)
    ]
    difference = float(np.median([detectable_over_seeds(x, 0 * x) for x in draws]))
    found = np.mean([paired_over_seeds(x + difference, 0 * x).p_t < 0.05 for x in draws])  # type: ignore[operator]
    assert 0.65 <= found <= 0.9
