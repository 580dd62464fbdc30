"""Intervals for other claims, Holm and power: by hand, against scipy, by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from fewshot_bench.results.intervals import (
    KINDS,
    bootstrap_interval,
    class_interval,
    hierarchical_interval,
    paired_over_seeds,
    seeds_interval,
    what_it_covers,
)
from fewshot_bench.results.power import (
    detectable_difference,
    episodes_needed,
    holm,
    power_of,
)
from fewshot_bench.results.statistics import paired_difference, student_interval

SCORES = np.random.default_rng(0).binomial(75, 0.9, 60) / 75


@pytest.mark.parametrize(("method", "scipys"), [("percentile", "percentile"), ("bca", "BCa")])
def test_bootstraps_are_scipys(method: str, scipys: str) -> None:
    ours = bootstrap_interval(SCORES, 0.9, method, resamples=999, seed=7)
    theirs = scipy.stats.bootstrap(
        (SCORES,), np.mean, confidence_level=0.9, n_resamples=999, method=scipys,
        rng=np.random.default_rng(7),
    ).confidence_interval  # fmt: skip
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert ours.half_width == pytest.approx((theirs.high - theirs.low) / 2, abs=1e-9)
    assert ours == bootstrap_interval(SCORES, 0.9, method, resamples=999, seed=7)


def test_paired_tests_are_scipys() -> None:
    other = np.random.default_rng(1).binomial(75, 0.88, 60) / 75
    paired = paired_difference(SCORES, other)
    t = scipy.stats.ttest_rel(SCORES, other)
    assert paired.p_t == pytest.approx(t.pvalue, abs=1e-9)
    low, high = t.confidence_interval(0.95)
    assert (paired.low, paired.high) == pytest.approx((low, high), abs=1e-9)
    # Equal differences have to be ties, which rounding errors of the subtraction would hide.
    ranks = scipy.stats.wilcoxon(np.round(SCORES - other, 14))
    assert paired.p_wilcoxon == pytest.approx(ranks.pvalue, abs=1e-9)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_scores_without_variation_have_no_width_and_no_nan(method: str) -> None:
    interval = bootstrap_interval([0.5] * 5, 0.95, method)
    assert (interval.half_width, interval.varies) == (0, False)
    assert not class_interval([0.5] * 3, np.array([[0, 1], [1, 2], [0, 2]])).varies
    flat = hierarchical_interval(np.full((3, 4), 0.7))
    assert (flat.half_width, flat.varies) == (0, False)
    same = paired_over_seeds(np.full((2, 3), 0.5), np.full((2, 3), 0.25))
    assert (same.difference, same.p_t, same.varies) == (0.25, None, False)
    assert bootstrap_interval([0.5]).half_width is None


def test_a_two_way_layout_by_hand() -> None:
    # Means of seeds 1 and 3, of episodes 1, 2 and 3, nothing left: MS_s = 6, MS_e = 2, MS_r = 0.
    y = np.array([[0.0, 1.0, 2.0], [2.0, 3.0, 4.0]])
    interval = hierarchical_interval(y)
    error = math.sqrt((6 + 2) / 6)
    freedom = 8**2 / (6**2 / 1 + 2**2 / 2)
    assert interval.mean == 2
    assert interval.half_width == pytest.approx(scipy.stats.t.ppf(0.975, freedom) * error)
    assert interval.sd == pytest.approx(math.sqrt(6 / 3 + 2 / 2))
    paired = paired_over_seeds(y + 1, np.zeros_like(y))
    assert paired.p_t == pytest.approx(2 * scipy.stats.t.sf(3 / error, freedom))
    assert paired.effect_size == pytest.approx(3 / math.sqrt(3))


def test_the_variance_of_classes_by_hand() -> None:
    # Four episodes of two of three classes; residuals -1, 1, 1, -1 and the numbers k of classes
    # in common, of the pairs: 12: 1, 13: 1, 14: 2, 23: 1, 24: 1, 34: 1 -> mean 7/6.
    ids = np.array([[0, 1], [1, 2], [0, 2], [0, 1]])
    scores = np.array([0.0, 2.0, 2.0, 0.0])
    products = {1: [-1, -1, 1, -1, -1], 2: [1]}
    k = np.array([1] * 5 + [2])
    p = np.array(products[1] + products[2])
    slope = ((k - k.mean()) * (p - p.mean())).sum() / ((k - k.mean()) ** 2).sum()
    of_classes, of_episodes = 4 * slope / 3, (4 / 3) / 4
    variance = of_classes + of_episodes
    freedom = variance**2 / (of_classes**2 / 2 + of_episodes**2 / 3)
    interval = class_interval(scores, ids)
    assert slope > 0
    assert interval.half_width == pytest.approx(
        scipy.stats.t.ppf(0.975, freedom) * math.sqrt(variance)
    )


def test_classes_that_do_nothing_leave_the_closed_interval() -> None:
    rng = np.random.default_rng(3)
    ids = np.stack([rng.choice(100, 5, replace=False) for _ in range(400)])
    ids[::2], scores = ids[1::2], np.tile([0.4, 0.6], 200)  # alike in classes, unlike in scores
    closed, of_classes = student_interval(scores), class_interval(scores, ids)
    assert of_classes.half_width == pytest.approx(closed.half_width, rel=1e-6)


def test_new_classes_are_covered_where_the_closed_interval_does_not() -> None:
    rng = np.random.default_rng(5)
    closed = of_classes = 0
    for _ in range(120):
        effect = rng.normal(0, 0.08, 60)
        ids = np.stack([rng.choice(60, 5, replace=False) for _ in range(200)])
        scores = 0.8 + effect[ids].mean(1) + rng.normal(0, 0.05, 200)
        for_classes, plain = class_interval(scores, ids), student_interval(scores)
        of_classes += for_classes.low <= 0.8 <= for_classes.high  # type: ignore[operator]
        closed += plain.low <= 0.8 <= plain.high  # type: ignore[operator]
    assert of_classes >= 0.87 * 120
    assert closed <= 0.75 * 120


@pytest.mark.parametrize("seeds", [3, 5])
def test_seeds_and_episodes_are_covered(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    hits = 0
    for _ in range(300):
        y = (
            rng.normal(0, 0.01, (seeds, 1))
            + rng.normal(0, 0.06, (1, 100))
            + rng.normal(0, 0.05, (seeds, 100))
        )
        interval = hierarchical_interval(y)
        hits += interval.low <= 0 <= interval.high  # type: ignore[operator]
    assert 0.9 * 300 <= hits <= 0.99 * 300


def test_over_seeds_alone() -> None:
    assert seeds_interval([0.8]).half_width is None
    assert seeds_interval([0.8, 0.9]) == student_interval([0.8, 0.9])


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, None, 0.03]) == pytest.approx([0.03, 0.06, None, 0.06])
    assert holm([]) == []
    assert holm([None]) == [None]
    assert holm([0.7, 0.6]) == [1.0, 1.0]


@given(st.lists(st.one_of(st.none(), st.floats(0, 1))))
def test_holm_only_raises_and_keeps_the_order(p_values: list[float | None]) -> None:
    corrected = holm(p_values)
    assert [c is None for c in corrected] == [p is None for p in p_values]
    pairs = [(p, c) for p, c in zip(p_values, corrected, strict=True) if p is not None]
    assert all(p <= c <= 1 for p, c in pairs)  # type: ignore[operator]
    assert [c for _, c in sorted(pairs)] == sorted(c for _, c in pairs)  # type: ignore[type-var]


def test_the_familywise_error_is_kept() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(size=(2000, 6))  # six true null hypotheses
    wrong = sum(min(holm(row)) < 0.05 for row in p.tolist())  # type: ignore[type-var]
    assert wrong / 2000 <= 0.06


def test_planned_episodes_reach_the_planned_power() -> None:
    n = episodes_needed(0.06, 0.01, power=0.8)
    assert power_of(0.01, 0.06, n) >= 0.8 > power_of(0.01, 0.06, n - 1)
    assert detectable_difference(0.06, n) <= 0.01 < detectable_difference(0.06, n - 1)
    draws = np.random.default_rng(0).normal(0.01, 0.06, (2000, n))
    t = draws.mean(1) / (draws.std(1, ddof=1) / math.sqrt(n))
    found = (t > scipy.stats.t.ppf(0.975, n - 1)).mean()
    assert abs(found - 0.8) <= 0.03


def test_what_cannot_be_planned() -> None:
    with pytest.raises(ValueError, match="never found"):
        episodes_needed(0.1, 0)
    for n, power in ((1, 0.8), (10, 0), (10, 1)):
        with pytest.raises(ValueError, match="between 0 and 1"):
            detectable_difference(0.1, n, power)
    assert detectable_difference(0, 10) == 0
    assert episodes_needed(1e-9, 1.0) == 2


def test_wrong_shapes() -> None:
    with pytest.raises(ValueError, match="way"):
        class_interval([0.1, 0.2], np.zeros((3, 2), dtype=int))
    with pytest.raises(ValueError, match="two seeds"):
        hierarchical_interval(np.ones((1, 5)))
    with pytest.raises(ValueError, match="one shape"):
        paired_over_seeds(np.ones((2, 5)), np.ones((3, 5)))
    with pytest.raises(ValueError, match="no bootstrap"):
        bootstrap_interval([0.1, 0.2], method="other")


@pytest.mark.parametrize("kind", KINDS)
def test_every_interval_is_put_in_words(kind: str) -> None:
    closed, opened = (what_it_covers(kind, sampling) for sampling in ("closed", "open"))
    assert closed.startswith("it covers")
    assert (closed == opened) == (kind in ("classes", "seeds"))


def test_no_such_interval() -> None:
    with pytest.raises(ValueError, match="no interval 'x'"):
        what_it_covers("x", "closed")
