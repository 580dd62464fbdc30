"""Intervals and paired tests: worked by hand, and against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from fewshot_bench.results.stats import paired_difference, student_interval

TOLERANCE = 1e-12


def test_an_interval_worked_by_hand() -> None:
    # mean 0.7; squared deviations 0.01 + 0.01 + 0 = 0.02; sd = sqrt(0.02 / 2) = 0.1
    # t(0.975, 2 degrees of freedom) = 4.302652729911275; half = t * 0.1 / sqrt(3)
    interval = student_interval([0.6, 0.8, 0.7])
    assert interval.mean == pytest.approx(0.7, abs=TOLERANCE)
    assert interval.sd == pytest.approx(0.1, abs=TOLERANCE)
    assert interval.half_width == pytest.approx(0.24841377118437502, abs=1e-10)
    assert interval.low == pytest.approx(0.7 - 0.24841377118437502, abs=1e-10)
    assert interval.high == pytest.approx(0.7 + 0.24841377118437502, abs=1e-10)
    assert (interval.n, interval.varies) == (3, True)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("n", [2, 7, 600])
def test_an_interval_is_scipys(level: float, n: int) -> None:
    scores = np.random.default_rng(n).binomial(75, 0.9, n) / 75
    scores[0] = 0.5  # so that even two of them differ
    interval = student_interval(scores, level)
    expected = stats.ttest_1samp(scores, 0.0).confidence_interval(level)
    assert interval.low == pytest.approx(expected.low, abs=TOLERANCE, rel=TOLERANCE)
    assert interval.high == pytest.approx(expected.high, abs=TOLERANCE, rel=TOLERANCE)


def test_a_single_score_has_no_interval() -> None:
    interval = student_interval([0.8])
    assert interval.mean == 0.8
    assert [interval.half_width, interval.low, interval.high, interval.sd] == [None] * 4
    assert (interval.n, interval.varies) == (1, False)


def test_scores_that_are_all_the_same() -> None:
    interval = student_interval([0.1] * 7)  # whose mean rounds to another number than 0.1
    assert (interval.half_width, interval.sd, interval.varies) == (0.0, 0.0, False)
    assert interval.mean == pytest.approx(0.1)


@pytest.mark.parametrize("scores", [[], [0.5, math.nan], [math.inf, 0.5]])
def test_scores_that_cannot_be(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one score, all finite"):
        student_interval(scores)


def test_a_paired_difference_worked_by_hand() -> None:
    # differences 0.1, 0.3, 0.2: mean 0.2, sd 0.1, d_z = 2, t = 0.2 / (0.1 / sqrt(3)) = 2 sqrt(3)
    # p of t with 2 degrees of freedom: 1 - t / sqrt(t^2 + 2) = 1 - sqrt(12 / 14)
    # Wilcoxon, exact: all three positive: 2 / 2^3
    paired = paired_difference([0.7, 0.9, 0.6], [0.6, 0.6, 0.4])
    assert paired.difference == pytest.approx(0.2, abs=TOLERANCE)
    assert paired.effect_size == pytest.approx(2.0, abs=1e-9)
    assert paired.p_t == pytest.approx(1 - math.sqrt(12 / 14), abs=1e-9)
    assert paired.p_wilcoxon == pytest.approx(0.25)
    assert (paired.n, paired.varies) == (3, True)


def test_a_paired_difference_is_scipys() -> None:
    random = np.random.default_rng(0)
    a, b = random.binomial(75, 0.9, 200) / 75, random.binomial(75, 0.88, 200) / 75
    paired, expected = paired_difference(a, b, 0.9), stats.ttest_rel(a, b)
    interval = expected.confidence_interval(0.9)
    assert paired.p_t == pytest.approx(expected.pvalue, abs=TOLERANCE)
    assert paired.p_wilcoxon == pytest.approx(
        stats.wilcoxon(np.round(75 * (a - b))).pvalue, abs=TOLERANCE
    )
    assert paired.low == pytest.approx(interval.low, abs=TOLERANCE)
    assert paired.high == pytest.approx(interval.high, abs=TOLERANCE)


@pytest.mark.parametrize(("n", "shift"), [(3, 0.01), (40, 0.05), (600, 0.02), (600, 0.3)])
def test_p_is_scipys_into_the_tail(n: int, shift: float) -> None:
    differences = np.round(np.random.default_rng(n).normal(shift, 0.1, n), 4)
    expected = stats.ttest_1samp(differences, 0.0).pvalue
    assert paired_difference(differences, np.zeros(n)).p_t == pytest.approx(expected, rel=1e-11)


def test_ranks_are_left_out_unless_asked_for() -> None:
    a, b = [0.7, 0.9, 0.6, 0.8], [0.6, 0.6, 0.7, 0.5]
    plain = paired_difference(a, b, ranks=False)
    assert plain.p_wilcoxon is None
    assert plain.p_t == paired_difference(a, b).p_t


def test_a_difference_changes_its_sign_with_its_sides() -> None:
    a, b = [0.7, 0.9, 0.6, 0.8], [0.6, 0.6, 0.7, 0.5]
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert one.difference == pytest.approx(-other.difference)
    assert one.p_t == pytest.approx(other.p_t)


@pytest.mark.parametrize(
    ("a", "b", "difference"),
    [([1.0] * 5, [1.0] * 5, 0.0), ([0.5] * 4, [0.25] * 4, 0.25), ([0.75], [0.5], 0.25)],
    ids=["equal", "a constant difference", "one episode"],
)
def test_differences_that_do_not_vary_have_no_test(
    a: list[float], b: list[float], difference: float
) -> None:
    paired = paired_difference(a, b)
    assert paired.difference == difference
    assert (paired.p_t, paired.p_wilcoxon, paired.effect_size) == (None, None, None)
    assert not paired.varies


def test_a_difference_that_varies_by_rounding_alone() -> None:
    a = [0.1 + 0.2, 0.8 - 0.1, 0.9]
    paired = paired_difference(a, [0.2, 0.6, 0.8])  # each 0.1, up to the last bit
    assert not paired.varies
    assert paired.p_t is None


def test_lengths_have_to_agree() -> None:
    with pytest.raises(ValueError, match=r"got \(2,\) and \(3,\)"):
        paired_difference([0.5, 0.6], [0.5, 0.6, 0.7])
