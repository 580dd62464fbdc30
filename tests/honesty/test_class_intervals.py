"""An interval over classes states the number of classes, and is robust to a few hard ones.

Classes that are much harder than the rest make a symmetric interval too short on one side: with 20
classes it contained the true value in 86 of 100 test sets in place of 95. The ends of the interval
are corrected for the skewness of the classes, simulations with skewed, symmetric and equal classes
test its coverage, and a table shows both ends, the number of classes and, if they are few, that it
can cover less than its level.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import fewshot_bench
from fewshot_bench.results.comparison import compare
from fewshot_bench.results.formats.data import to_json
from fewshot_bench.results.formats.markdown import markdown
from fewshot_bench.results.runs import load_runs
from fewshot_bench.results.stats import class_interval, few_classes

EXPERIMENTS = 300  # a coverage of 95 % comes out as 91 or more in all but one of 1,000 draws


def effects(kind: str, random: np.random.Generator, classes: int) -> np.ndarray:
    """Effects of mean 0 and variance 1; but for the normal ones, a few classes are much harder."""
    if kind == "lognormal":
        return (np.exp(0.5) - random.lognormal(size=classes)) / np.sqrt(np.e * (np.e - 1))
    return (
        1 - random.exponential(size=classes)
        if kind == "exponential"
        else random.normal(size=classes)
    )


def coverage(kind: str, classes: int, size: float = 0.1) -> tuple[float, float]:
    """Of the interval and of the symmetric one, in %, over new classes; the truth is 0."""
    random, held = np.random.default_rng(3), np.zeros(2)
    for _ in range(EXPERIMENTS):
        ids = random.random((200, classes)).argpartition(5)[:, :5]
        scores = size * effects(kind, random, classes)[ids].mean(axis=1)
        scores += 0.05 * random.normal(size=200)
        for at, symmetric in enumerate((False, True)):
            found = class_interval(scores, ids, symmetric=symmetric)
            assert found.low is not None
            assert found.high is not None
            held[at] += found.low <= 0 <= found.high
    moved, even = 100 * held / EXPERIMENTS
    return float(moved), float(even)


def test_a_few_hard_classes_are_covered() -> None:
    """Test sets of 20 classes with lognormal effects are drawn: the symmetric interval contains the
    true value far too seldom, the interval of the package nearly as often as its level.
    """
    moved, even = coverage("lognormal", 20)
    assert even < 89
    assert moved >= 90
    assert moved - even > 3


@pytest.mark.parametrize(("kind", "classes"), [("exponential", 20), ("normal", 20)])
def test_milder_and_symmetric_classes_are_covered(kind: str, classes: int) -> None:
    """Test sets with mildly skewed and with symmetric classes are drawn: the coverage equals the
    level.
    """
    moved, even = coverage(kind, classes)
    assert 91 <= moved <= 99.5
    assert moved >= even


def test_equal_classes_are_covered() -> None:
    """Classes that do not differ are drawn: the interval does not become too short."""
    assert coverage("normal", 20, size=0.0)[0] >= 93


def test_an_end_is_lengthened_never_shortened() -> None:
    """Skewed scores of either sign are given: no end is nearer to the mean than in the symmetric
    interval, and the far end is on the side of the hard classes.
    """
    random = np.random.default_rng(5)
    for sign in (1, -1):
        ids = random.random((300, 25)).argpartition(5)[:, :5]
        effect = sign * (random.exponential(size=25) - 1)
        scores = effect[ids].mean(axis=1) + 0.1 * random.normal(size=300)
        moved, even = class_interval(scores, ids), class_interval(scores, ids, symmetric=True)
        assert moved.low <= even.low + 1e-12  # type: ignore[operator]
        assert moved.high >= even.high - 1e-12  # type: ignore[operator]
        longer = (moved.high - even.high) - (even.low - moved.low)  # type: ignore[operator]
        assert longer * sign > 0


def test_few_classes_are_stated() -> None:
    """Numbers of classes are put into words: under 100, the sentence says what that means."""
    assert few_classes([423], 0.95) == "It rests on 423 classes."
    said = few_classes([20, 64], 0.9)
    assert said.startswith("It rests on 20 to 64 classes: with fewer than 100 it covers less")
    assert "90 %" in said


def test_a_table_says_how_many_classes(tmp_path: Path) -> None:
    """A run is compared with ``--interval classes``: the caption has the number of classes and the
    warning, the text both ends, and the JSON the number.
    """
    fewshot_bench.run(
        "nearest-centroid", dataset="glyphs", train_classes=5, validation_classes=5,
        test_classes=12, way=3, shot=1, query=2, episodes=60, runs_dir=str(tmp_path / "runs"),
        cache_dir=str(tmp_path / "cache"),
    )  # fmt: skip
    comparison = compare(load_runs([tmp_path / "runs"])[0], interval="classes")
    text = markdown(comparison)
    assert "It rests on 12 classes: with fewer than 100 it covers less than 95 %" in text
    (low, high) = map(float, re.findall(r"\[([\d.]+), ([\d.]+)\\?\]", text)[0])
    (row,) = json.loads(to_json(comparison))["tables"][0]["rows"]
    (cell,) = row["settings"].values()
    assert cell["classes"] == 12
    assert cell["interval"] == pytest.approx([low / 100, high / 100], abs=1e-4)
    assert 0 <= cell["interval"][0] < cell["accuracy"] < cell["interval"][1] <= 1
    plain = compare(load_runs([tmp_path / "runs"])[0])
    assert "It rests on" not in markdown(plain)
