"""Which row a table marks as the best, and the sentences that it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from fewshot_bench.results.formats.markdown import markdown
from fewshot_bench.results.sentences import accuracy_words, sentences
from tests.results.compared import cell, compared, only
from tests.results.made_up_runs import EPISODES, scores_of, task, write_run


@pytest.mark.parametrize(
    ("means", "marks"),
    [
        ((0.95, 0.7, 0.5), ["best", "", ""]),
        ((0.9, 0.9, 0.5), ["tied", "tied", ""]),
        ((0.9,), [""]),
    ],
    ids=["clear", "a close second", "alone"],
)
def test_the_best_is_bold_only_if_it_beats_every_other(
    means: tuple[float, ...], marks: list[str], tmp_path: Path
) -> None:
    for i, mean in enumerate(means):
        write_run(tmp_path, f"m{i}", scores_of(i, mean))
    result = compared(tmp_path)
    assert [c.mark for row in only(result).rows for c in row.cells if c] == marks
    text = markdown(result)
    assert ("| **" in text) is ("best" in marks)
    assert ("Bold: better than every other" in text) is ("best" in marks)
    assert text.count(r" \* |") == marks.count("tied")
    assert ("Tied on 5-way 5-shot: m" in text) is ("tied" in marks)


def test_the_correction_can_take_the_bold_away(tmp_path: Path) -> None:
    """Two methods that differ at 5 % are tied among many: the smallest of ten p values is not."""
    rng = np.random.default_rng(0)
    base = rng.binomial(75, 0.8, EPISODES) / 75
    noise = rng.normal(0, 0.01, (5, EPISODES))
    noise -= noise.mean(1, keepdims=True)
    noise /= noise.std(1, ddof=1, keepdims=True)
    # The first one is ahead of each other by 2.3 standard errors of the difference.
    scores = base + 0.01 * noise + np.array([[2.3 * 0.01 * np.sqrt(2 / EPISODES)]] + [[0.0]] * 4)
    for i in (0, 1):
        write_run(tmp_path / "two", f"m{i}", scores[i])
    for i in range(5):
        write_run(tmp_path / "five", f"m{i}", scores[i])
    p = stats.ttest_rel(scores[0], scores[1]).pvalue
    assert 0.005 < p < 0.05
    assert cell(only(compared(tmp_path / "two")), "m0").mark == "best"
    assert cell(only(compared(tmp_path / "five")), "m0").mark == "tied"


def test_marks_agree_with_tests_one_by_one(tmp_path: Path) -> None:
    scores = [scores_of(i, 0.78 + 0.01 * i) for i in range(8)]
    for i, values in enumerate(scores):
        write_run(tmp_path, f"m{i}", values)
    pairs = [(i, j) for i in range(8) for j in range(i + 1, 8)]
    p = np.array([stats.ttest_rel(scores[i], scores[j]).pvalue for i, j in pairs])
    order = np.argsort(p)
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    best = int(np.argmax([values.mean() for values in scores]))
    tied = {
        sum(pair) - best
        for pair, q in zip(pairs, corrected, strict=True)
        if best in pair and q >= 0.05
    }
    table = only(compared(tmp_path))
    assert tied
    assert {row.method for row in table.rows if row.cells[0].mark} == {  # type: ignore[union-attr]
        f"m{i}" for i in {best, *tied}
    }


def test_scores_without_variation_are_shown_as_such(tmp_path: Path) -> None:
    write_run(tmp_path, "ones", np.ones(EPISODES))
    write_run(tmp_path, "same", np.ones(EPISODES))
    write_run(tmp_path, "less", np.full(EPISODES, 0.5))
    result = compared(tmp_path, "ones")
    text = markdown(result)
    assert text.count("100.00 (no variation)") == 2
    assert "| less | -50.00 | no variation |" in text
    assert "ones and" not in text
    assert "On 5-way 5-shot, same and ones score the same on every episode." in text
    assert "less is worse than ones by 50.00 points on every episode; without variation" in text
    assert "nan" not in text.lower()


def test_one_episode_has_no_interval(tmp_path: Path) -> None:
    write_run(tmp_path, "a", np.array([0.8]))
    write_run(tmp_path, "b", np.array([0.6]))
    text = markdown(compared(tmp_path, "b"))
    assert "80.00 (one episode)" in text
    assert "a is better than b by 20.00 points; one episode allows no test." in text


TRAINED = {"training": {"steps": 1, "seconds": 1.0, "warmup_seconds": 0.0, "engine": "eager"}}


def test_a_difference_that_was_found_is_told(tmp_path: Path) -> None:
    write_run(tmp_path, "low", scores_of(1, 0.7), **TRAINED)
    write_run(tmp_path, "high", scores_of(2, 0.9), **TRAINED)
    for one, better, base in (("high", "better", "low"), ("low", "worse", "high")):
        result = compared(tmp_path, base)
        found = cell(only(result), one).paired
        assert found is not None
        low, high = sorted(
            100 * abs(end) for end in (found.paired.low or 0, found.paired.high or 0)
        )
        points = 100 * abs(found.paired.difference)
        assert sentences(only(result), result) == [
            f"On 5-way 5-shot, this trained {one} is {better} than this trained {base} by "
            f"{points:.2f} points (95 % interval {low:.2f} to {high:.2f}; p < 0.001 after Holm) "
            "on these episodes."
        ]


def test_a_difference_that_was_not_found_tells_what_would_have_been(tmp_path: Path) -> None:
    write_run(tmp_path, "base", scores_of(1, 0.8), **TRAINED)
    write_run(tmp_path, "other", scores_of(2, 0.8))
    result = compared(tmp_path, "base")
    found = cell(only(result), "other").paired
    assert found is not None
    assert found.detectable is not None
    sd = (scores_of(2, 0.8) - scores_of(1, 0.8)).std(ddof=1)
    # 2.80 = z(0.975) + z(0.8); with t's quantiles at 39 degrees of freedom a little more
    assert found.detectable == pytest.approx(2.80 * sd / np.sqrt(EPISODES), rel=0.03)
    (text,) = sentences(only(result), result)
    assert text.startswith(
        "On 5-way 5-shot, no difference found between other and this trained base ("
    )
    assert "with other training: none against 800 steps" in text  # other has no parameters
    assert text.endswith(
        f"With 40 episodes one of {100 * found.detectable:.2f} points would have been (power 80 %)."
    )


def test_a_run_evaluated_elsewhere_says_what_it_was_trained_for(tmp_path: Path) -> None:
    write_run(tmp_path, "m", scores_of(1), task=task(5, 1), evaluated_from="m-1")
    result = compared(tmp_path)
    words = " ".join(accuracy_words(only(result), result))
    assert "m on 5-way 1-shot: weights trained on 5-way 5-shot." in words
