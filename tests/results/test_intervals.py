"""Intervals over episodes, classes and seeds; Holm: by hand, against scipy, and properties."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fewshot_bench.errors import UnknownName
from fewshot_bench.results.stats import (
    INTERVALS,
    Interval,
    bootstrap_interval,
    class_interval,
    hierarchical_interval,
    holm,
    paired_difference,
    paired_over_seeds,
    seeds_interval,
    student_interval,
    what_it_covers,
)
from fewshot_bench.results.stats.classes import _Design

RANDOM = np.random.default_rng(7)
SCORES = RANDOM.binomial(75, 0.9, 120) / 75
METHODS = ("percentile", "BCa")
fractions = st.integers(0, 20).map(lambda hits: hits / 20)


def numbers(interval: Interval) -> list[float]:
    values = (interval.mean, interval.half_width, interval.low, interval.high)
    return [value for value in values if value is not None]


# Bootstrap


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_a_bootstrap_is_scipys(method: str, level: float) -> None:
    random = np.random.default_rng(3)
    expected = stats.bootstrap(
        (SCORES,), np.mean, confidence_level=level, method=method, n_resamples=999,
        random_state=random,
    ).confidence_interval  # fmt: skip
    found = bootstrap_interval(SCORES, level, method, resamples=999, seed=3)
    assert found.low == pytest.approx(expected.low, abs=1e-12)
    assert found.high == pytest.approx(expected.high, abs=1e-12)
    assert found.mean == pytest.approx(SCORES.mean())
    assert found.half_width == pytest.approx((expected.high - expected.low) / 2, abs=1e-12)


def test_a_bootstrap_repeats_and_depends_on_its_seed() -> None:
    one, again = (bootstrap_interval(SCORES, resamples=200, seed=1) for _ in range(2))
    assert one == again
    assert one != bootstrap_interval(SCORES, resamples=200, seed=2)


def test_bca_leans_to_the_longer_tail() -> None:
    skewed = np.array([1.0] * 40 + [0.9] * 8 + [0.2] * 2)
    plain, corrected = (bootstrap_interval(skewed, method=method) for method in METHODS)
    assert plain.low is not None
    assert corrected.low is not None
    assert corrected.low < plain.low


@given(st.lists(fractions, min_size=1, max_size=12), st.sampled_from(METHODS))
@settings(max_examples=60, deadline=None)
def test_a_bootstrap_is_never_nan(scores: list[float], method: str) -> None:
    found = bootstrap_interval(scores, method=method, resamples=50)
    assert all(map(math.isfinite, numbers(found)))
    assert found.varies == (len(set(scores)) > 1)
    if found.low is not None:
        assert found.high is not None
        assert min(scores) - 1e-12 <= found.low <= found.high <= max(scores) + 1e-12


def test_a_bootstrap_of_scores_that_differ_in_their_last_bits() -> None:
    found = bootstrap_interval([0.1 + 0.2, 0.3, 0.3], method="BCa")
    assert not found.varies
    assert found.half_width == 0


def test_another_bootstrap_is_refused() -> None:
    with pytest.raises(ValueError, match="got 'basic'"):
        bootstrap_interval(SCORES, method="basic")


# Classes


def test_without_a_class_in_two_episodes_it_is_students() -> None:
    ids = np.arange(15).reshape(5, 3)
    scores = [0.2, 0.5, 0.9, 0.4, 0.7]
    assert class_interval(scores, ids) == replace(student_interval(scores), clusters=15)


def test_one_class_per_episode_is_the_one_way_layout() -> None:
    """4 classes of 30 episodes that differ far more than their episodes do: t of 4 means."""
    means = np.array([0.2, 0.4, 0.6, 0.8])
    ids = np.repeat(np.arange(4), 30)[:, None]
    scores = np.repeat(means, 30) + np.tile([-1e-6, 1e-6], 60)
    expected = student_interval(means)
    found = class_interval(scores, ids)
    assert found.mean == pytest.approx(expected.mean)
    assert found.half_width == pytest.approx(expected.half_width, rel=0.02)
    narrow = student_interval(scores).half_width
    assert narrow is not None
    assert expected.half_width is not None
    assert narrow < expected.half_width / 5


def test_a_hard_class_moves_the_lower_end_as_worked_by_hand() -> None:
    """5 classes, one far harder; their third moment is k_3 = n / ((n - 1)(n - 2)) Σ (x - x̄)³, the
    skewness of the mean β = k_3 / (s³ √n), and T + βT²/3 + β²T³/27 + β/6 = ((1 + βT/3)³ - 1) / β
    + β/6 is solved for T at Student's quantile."""
    means = np.array([0.95, 0.9, 0.9, 0.8, 0.3])
    # deviations from 0.77: 0.18, 0.13, 0.13, 0.03, -0.47; squares 0.288, cubes -0.09357
    deviation = math.sqrt(0.288 / 4 / 5)
    beta = 5 / 12 * -0.09357 / (0.288 / 4) ** 1.5 / math.sqrt(5)
    assert beta == pytest.approx(-0.9025, abs=1e-4)
    q = 2.7764451  # of 4 degrees of freedom
    low = 0.77 - deviation * 3 * (np.cbrt(1 + beta * (q - beta / 6)) - 1) / beta
    ids = np.repeat(np.arange(5), 30)[:, None]
    found = class_interval(np.repeat(means, 30) + np.tile([-1e-6, 1e-6], 75), ids)
    assert found.low == pytest.approx(low, abs=0.03 * abs(low - 0.77))
    assert found.high == pytest.approx(0.77 + q * deviation, rel=0.01)  # no end is shortened
    assert (found.mean, found.clusters) == (pytest.approx(0.77), 5)
    assert found.half_width == pytest.approx((found.high - found.low) / 2)
    even = class_interval(np.repeat(means, 30) + np.tile([-1e-6, 1e-6], 75), ids, symmetric=True)
    assert even.high - even.mean == pytest.approx(even.mean - even.low)
    assert found.low < even.low


def test_third_moments_of_effect_and_rest_are_found() -> None:
    """Many classes and episodes of skewed effects and rests, unevenly used: the skewness of the
    mean is (γ Σ n³ / E³ + ρ / E²) / Var^1.5; γ of minus an exponential is -2 cubed scales."""
    random = np.random.default_rng(1)
    classes, episodes, effect, rest = 300, 6000, 0.05, 0.1
    weight = np.linspace(1, 4, classes)
    ids = (random.random((episodes, classes)) ** weight).argpartition(-3)[:, -3:]
    scores = effect * (1 - random.exponential(size=classes))[ids].sum(axis=1)
    scores += rest * (random.exponential(size=episodes) - 1)
    uses = np.bincount(ids.ravel(), minlength=classes)
    variance = effect**2 * (uses @ uses) / episodes**2 + rest**2 / episodes
    third = -2 * effect**3 * (uses**3).sum() / episodes**3 + 2 * rest**3 / episodes**2
    deviation, skewness = _Design(ids).spread(scores)
    assert deviation == pytest.approx(math.sqrt(variance), rel=0.15)
    assert skewness == pytest.approx(third / variance**1.5, rel=0.4)


def test_a_mirrored_score_has_the_mirrored_interval() -> None:
    random = np.random.default_rng(7)
    ids = random.random((80, 12)).argpartition(3)[:, :3]
    scores = random.exponential(size=12)[ids].sum(axis=1) + random.normal(size=80)
    one, other = class_interval(scores, ids), class_interval(-scores, ids)
    assert (other.low, other.high) == (
        pytest.approx(-one.high),  # type: ignore[operator]
        pytest.approx(-one.low),  # type: ignore[operator]
    )
    assert one.high - one.mean > one.mean - one.low  # type: ignore[operator]


def test_the_variance_of_a_class_effect_is_found() -> None:
    """Many classes, many episodes: the variance of the mean is g Σ n² / E² + s / E."""
    random = np.random.default_rng(0)
    classes, episodes, way, effect, rest = 400, 4000, 5, 0.05, 0.1
    ids = random.random((episodes, classes)).argpartition(way)[:, :way]
    scores = effect * random.normal(size=classes)[ids].sum(axis=1)
    scores += rest * random.normal(size=episodes)
    uses = np.bincount(ids.ravel())
    expected = math.sqrt(effect**2 * (uses @ uses) / episodes**2 + rest**2 / episodes)
    half = class_interval(scores, ids).half_width
    assert half == pytest.approx(1.96 * expected, rel=0.1)


@given(st.permutations(range(30)), st.permutations(range(12)))
@settings(max_examples=15, deadline=None)
def test_order_and_names_of_classes_do_not_matter(order: list[int], names: list[int]) -> None:
    random = np.random.default_rng(5)
    ids = random.random((30, 12)).argpartition(3)[:, :3]
    scores = random.binomial(15, 0.8, 30) / 15
    other = class_interval(scores[order], np.array(names)[ids[order]][:, ::-1])
    assert numbers(other) == pytest.approx(numbers(class_interval(scores, ids)), rel=1e-9)


def test_one_set_of_classes_tells_nothing_of_others() -> None:
    ids = np.tile(np.arange(5), (40, 1))
    found = class_interval(SCORES[:40], ids)
    assert (found.half_width, found.low, found.high) == (None, None, None)
    assert found.varies


@given(
    st.lists(
        st.tuples(fractions, st.sets(st.integers(0, 7), min_size=2, max_size=2)),
        min_size=1,
        max_size=14,
    )
)
@settings(max_examples=80, deadline=None)
def test_a_class_interval_is_never_nan(episodes: list[tuple[float, set[int]]]) -> None:
    scores = [score for score, _ in episodes]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = class_interval(scores, [sorted(ids) for _, ids in episodes])
    assert all(map(math.isfinite, numbers(found)))
    assert found.half_width is None or found.half_width >= 0
    assert found.varies == (len(set(scores)) > 1)


def test_ids_have_to_fit_the_scores() -> None:
    with pytest.raises(ValueError, match="class ids"):
        class_interval([0.5, 0.6], [[1, 2]])


# Seeds


def test_a_two_way_layout_worked_by_hand() -> None:
    """Seeds 0 and 4 apart, episodes 1 and 3 apart, no rest: the variances are 8 and 2."""
    table = [[0.0, 2.0], [4.0, 6.0]]
    found = hierarchical_interval(table, 0.5)
    # t of one degree of freedom is 1 at 50 %: half² = 8 / 2 + 2 / 2.
    assert found.mean == 3.0
    assert found.half_width == pytest.approx(math.sqrt(5))
    assert found.sd == pytest.approx(math.sqrt(10))
    assert found.n == 4


def test_a_rest_is_taken_out_of_the_episodes() -> None:
    """The mean squares of a table, from their definitions."""
    table = RANDOM.normal(size=(4, 30)) + RANDOM.normal(size=(4, 1)) + RANDOM.normal(size=(1, 30))
    grand, by_seed, by_episode = table.mean(), table.mean(axis=1), table.mean(axis=0)
    ms_seed = 30 * ((by_seed - grand) ** 2).sum() / 3
    ms_episode = 4 * ((by_episode - grand) ** 2).sum() / 29
    rest = table - by_seed[:, None] - by_episode + grand
    ms_rest = (rest**2).sum() / (3 * 29)
    t_seed, t_episode = stats.t.ppf(0.975, 3), stats.t.ppf(0.975, 29)
    half = math.sqrt((t_seed**2 * ms_seed + t_episode**2 * (ms_episode - ms_rest)) / 120)
    assert hierarchical_interval(table).half_width == pytest.approx(half, rel=1e-12)


def test_seeds_alone_are_students() -> None:
    means = [0.91, 0.93, 0.92]
    assert seeds_interval(means) == student_interval(means)


def test_one_seed_has_no_width() -> None:
    assert seeds_interval([0.9]).half_width is None
    found = hierarchical_interval([SCORES])
    assert found.half_width is None
    assert found.varies
    paired = paired_over_seeds([SCORES], [SCORES[::-1]])
    assert (paired.half_width, paired.p_t, paired.effect_size) == (None, None, None)


def test_seeds_that_do_not_matter_leave_the_paired_test() -> None:
    """With each seed's scores the same, only episodes vary: the paired t test of one seed."""
    a, b = RANDOM.binomial(75, 0.9, 50) / 75, RANDOM.binomial(75, 0.85, 50) / 75
    one = paired_difference(a, b)
    found = paired_over_seeds([a, a, a], [b, b, b])
    assert found.difference == pytest.approx(one.difference)
    assert found.half_width == pytest.approx(one.half_width, rel=1e-9)
    assert found.p_t == pytest.approx(one.p_t, rel=1e-6)
    assert found.effect_size == pytest.approx(one.effect_size, rel=1e-9)
    assert found.n == 50
    assert found.p_wilcoxon is None


def test_episodes_that_do_not_matter_leave_the_test_over_seeds() -> None:
    means = np.array([0.01, 0.03, 0.05, 0.02])
    found = paired_over_seeds(np.repeat(means[:, None], 9, axis=1), np.zeros((4, 9)))
    expected = stats.ttest_1samp(means, 0.0)
    assert found.p_t == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.half_width == pytest.approx(seeds_interval(means).half_width, rel=1e-9)


@given(
    st.integers(2, 4).flatmap(
        lambda s: st.lists(
            st.lists(fractions, min_size=s, max_size=s), min_size=2, max_size=6
        )
    )
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_p_and_interval_agree(rows: list[list[float]]) -> None:
    table = np.array(rows)
    found = paired_over_seeds(table, np.full(table.shape, 0.5), 0.95)
    assert found.half_width is not None
    if found.p_t is None:
        assert not found.varies
        return
    assert 0 < found.p_t <= 1
    if abs(abs(found.difference) - found.half_width) > 1e-9:
        assert (found.p_t < 0.05) == (abs(found.difference) > found.half_width)


@given(st.permutations(range(3)), st.permutations(range(20)))
@settings(max_examples=15, deadline=None)
def test_the_order_of_seeds_and_episodes_does_not_matter(
    seeds: list[int], episodes: list[int]
) -> None:
    table = np.random.default_rng(1).random((3, 20))
    other = table[seeds][:, episodes]
    expected = numbers(hierarchical_interval(table))
    assert numbers(hierarchical_interval(other)) == pytest.approx(expected, rel=1e-9)


def test_what_is_no_table_is_refused() -> None:
    with pytest.raises(ValueError, match="table"):
        hierarchical_interval(SCORES)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one shape"):
        paired_over_seeds([[0.5, 0.6]], [[0.5]])
    with pytest.raises(ValueError, match="finite"):
        hierarchical_interval([[0.5, math.nan], [0.1, 0.2]])


# Holm, captions


def test_holm_worked_by_hand() -> None:
    found = holm([0.01, 0.04, None, 0.03])
    assert found == pytest.approx([0.03, 0.06, math.nan, 0.06], nan_ok=True)
    assert holm([0.5, 0.9]).tolist() == [1.0, 1.0]
    assert math.isnan(holm([None])[0])
    assert holm([]).tolist() == []


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=12))
def test_holm_keeps_the_order_and_only_raises(p_values: list[float | None]) -> None:
    corrected = holm(p_values)
    done = [(p, c) for p, c in zip(p_values, corrected, strict=True) if p is not None]
    assert all(math.isnan(c) for p, c in zip(p_values, corrected, strict=True) if p is None)
    assert all(p <= c <= min(1.0, len(done) * p) for p, c in done)
    ordered = [c for _, c in sorted(done)]
    assert ordered == sorted(ordered)


def test_every_interval_says_what_it_covers() -> None:
    said = {
        (kind, how): what_it_covers(kind, how) for kind in INTERVALS for how in ("open", "closed")
    }
    assert all(text.startswith("It covers ") and text.endswith("fixed.") for text in said.values())
    student, seeds = said["student", "closed"], said["seeds", "closed"]
    assert "which episodes were drawn from these test images" in student
    assert "the images, their classes and the training seed are fixed" in student
    assert said["student", "open"] != student
    assert "images of these test classes" in said["student", "open"]
    assert "classes and images came into the test" in said["classes", "open"]
    assert "covers the training seed and which" in said["hierarchical", "closed"]
    assert "the test episodes, their images and classes are fixed" in seeds


def test_an_unknown_interval_is_told() -> None:
    with pytest.raises(UnknownName, match="did you mean 'student'"):
        what_it_covers("studnet", "closed")
