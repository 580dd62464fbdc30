"""``fsb plan`` on pilots that nobody ran and on pilots of a tiny run."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fewshot_bench
from fewshot_bench.results.pilots import class_accuracies, pilot_of
from fewshot_bench.results.record import write_table
from fewshot_bench.results.runs import load_runs
from fewshot_bench.results.stats import episodes_needed, paired_power
from tests.command_line import fsb
from tests.results.made_up_runs import write_run

EPISODES, WAY, QUERY = 60, 5, 15


def pilot(runs: Path, method: str, seed: int, query: int = QUERY, **changes: Any) -> Path:
    """A made-up run with its confusions: the class beside is taken for the right one at times."""
    right = np.random.default_rng(seed).binomial(query, 0.8, (EPISODES, WAY))
    task = {"way": WAY, "shot": 5, "query": query, "unlabeled": 0, "distractors": 0}
    folder = write_run(runs, method, right.sum(axis=1) / (WAY * query), task=task, **changes)
    episode, target = (index.ravel() for index in np.indices(right.shape))
    count = right.ravel()
    columns = {
        "episode": np.concatenate([episode, episode]),
        "target": np.concatenate([target, target]),
        "predicted": np.concatenate([target, (target + 1) % WAY]),
        "count": np.concatenate([count, query - count]),
    }
    kept = columns["count"] > 0
    write_table(folder / "confusion.csv", {name: values[kept] for name, values in columns.items()})
    return folder


def answer_of(*arguments: Any) -> str:
    """What it prints where nothing is wrong."""
    return " ".join(fsb("plan", *map(str, arguments), COLUMNS="100").succeeded().out.split())


def planned(*arguments: Any) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(answer_of(*arguments, "--json"))
    return result


def accuracies(folder: Path) -> np.ndarray:
    return load_runs([folder])[0][0].scores()[1]


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    return pilot(tmp_path, "alpha", 1), pilot(tmp_path, "beta", 2)


def test_two_pilots_are_paired(two: tuple[Path, Path]) -> None:
    sd = np.std(accuracies(two[0]) - accuracies(two[1]), ddof=1)
    result = planned("--difference", "0.7", "--power", "0.9", *two)
    assert result["paired"]
    assert result["difference"] == pytest.approx(0.007)
    assert result["sd"] == pytest.approx(sd)
    assert result["episodes"] == episodes_needed(sd, 0.007, 0.9)
    assert paired_power(sd, result["pilot_finds"], EPISODES) == pytest.approx(0.9)
    text = answer_of("--difference", "0.7", "--power", "0.9", *two)
    assert "To find 0.70 points with power 0.9 (two-sided paired t test at 0.05): " in text
    assert f"{result['episodes']} episodes of 15 queries per class." in text
    assert "will vary as those of these two trained networks do" in text


def test_one_pilot_says_that_it_assumes_no_pairing(two: tuple[Path, Path]) -> None:
    result = planned(two[0])
    assert not result["paired"]
    assert result["sd"] == pytest.approx(math.sqrt(2) * np.std(accuracies(two[0]), ddof=1))
    assert "not to be paired" in result["assumed"][0]


def test_the_part_that_falls_with_queries_is_binomial(two: tuple[Path, Path]) -> None:
    """Queries that err by a coin of 0.8: all of the variance falls, .16 / 75 for each method."""
    runs = load_runs(two)[0]
    accuracy = class_accuracies(runs[0])
    assert accuracy.shape == (EPISODES, WAY)
    assert accuracy.mean(axis=1) == pytest.approx(accuracies(two[0]))
    found = pilot_of(runs)
    assert found.falls is not None
    assert found.falls == pytest.approx(min(2 * 0.16 / 75, found.variance), rel=0.1)
    more = found.variance - found.falls / 2
    assert found.sd(2 * QUERY) == pytest.approx(math.sqrt(more))
    assert found.sd(1) > found.sd() == found.sd(QUERY)


def test_one_query_does_not_tell_of_more(tmp_path: Path) -> None:
    found = pilot_of(load_runs([pilot(tmp_path, "alpha", 1, query=1)])[0])
    assert found.falls is None
    with pytest.raises(ValueError, match="one query"):
        found.sd(2)


def test_an_open_plan_of_real_data(tmp_path: Path) -> None:
    """Twelve drawn characters of 20 images, 3-way 2-shot: the longest plan is that of 1 query."""
    settings = {
        "dataset": "glyphs", "train_classes": 6, "validation_classes": 0, "test_classes": 12,
        "image_size": 16, "way": 3, "shot": 2, "query": 4, "episodes": 12,
        "runs_dir": str(tmp_path / "runs"), "cache_dir": str(tmp_path / "cache"),
    }  # fmt: skip
    record = fewshot_bench.run("nearest-centroid", sampling="open", **settings)
    folder = tmp_path / "runs" / record["id"]
    result = planned(folder, "--difference", "30")
    rows = {row["query"]: row for row in result["open"]}
    assert result["sampling"] == "open"
    assert sorted(rows) == list(range(1, max(rows) + 1))
    assert (
        rows[4]["episodes"]
        == fewshot_bench.run("nearest-centroid", sampling="open", **{**settings, "episodes": 1000})[
            "test"
        ]["episodes"]
    )
    assert rows[1]["episodes"] > rows[4]["episodes"] > rows[8]["episodes"]
    assert rows[1]["sd"] > rows[4]["sd"] > rows[8]["sd"]
    assert rows[4]["sd"] == pytest.approx(result["sd"])
    assert rows[4]["power"] == pytest.approx(paired_power(result["sd"], 0.3, rows[4]["episodes"]))
    best = max(result["open"], key=lambda row: row["power"])
    assert result["best_query"] == best["query"]
    assert result["reached"] == best["reaches"] == (best["power"] >= 0.8)
    assert "err independently" in result["assumed"][1]
    text = answer_of(folder, "--difference", "30")
    assert f"power is greatest with {best['query']} queries per class; it is reached." in text
    text = answer_of(folder, "--difference", "0.1")
    assert "no query count reaches the power asked." in text
    assert "open" not in planned(folder, "--sampling", "closed")


def assert_refused(arguments: Sequence[Any], *words: str) -> None:
    answer = fsb("plan", *map(str, arguments))
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1
    assert all(word in answer.err for word in words), answer.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--difference", "0"), ("--difference", "over 0", "got 0")),
        (("--difference", "-1"), ("--difference", "got -1")),
        (("--difference", "nan"), ("--difference", "got nan")),
        (("--difference", "1e-7"), ("more than a billion",)),
        (("--power", "1"), ("--power", "got 1")),
        (("--power", "0"), ("--power", "got 0")),
        (("--alpha", "1"), ("--alpha", "between", "got 1")),
        (("--sampling", "ajar"), ("--sampling", "closed or open", "got ajar")),
    ],
)
def test_bad_options(
    two: tuple[Path, Path], options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    assert_refused([*two, *options], *words)


def test_bad_pilots(two: tuple[Path, Path], tmp_path: Path) -> None:
    assert_refused([tmp_path / "nowhere"], "nowhere", "fsb run")
    (tmp_path / "empty").mkdir()
    assert_refused([tmp_path / "empty"], "no record.json")
    other = pilot(tmp_path / "others", "gamma", 3, episodes_digest="f" * 64)
    assert_refused([two[0], other], "cannot be paired", "other episodes")
    third = pilot(tmp_path / "more", "gamma", 3)
    assert_refused([*two, third], "one or two runs, not 3")
    same = pilot(tmp_path / "more", "alpha", 1)
    assert_refused([two[0], same], "do not vary")
    (third / "confusion.csv").write_text("episode,target\n0,0\n", "utf-8")
    assert_refused([third], "confusion.csv", "no table of confusions")
    (third / "episodes.csv").unlink()
    assert_refused([two[0], third], "is missing")
    unknown = pilot(tmp_path / "unknown", "alpha", 1, config={"no_setting": 1})
    assert_refused([unknown, "--sampling", "open"], "record's configuration")


def test_unless_named_the_newest_pair_is_the_pilot(tmp_path: Path) -> None:
    pilot(tmp_path, "a", 1)
    pilot(tmp_path, "b", 2)
    pilot(tmp_path, "c", 3, query=5)
    for path, stamp in zip(sorted(tmp_path.iterdir()), (1, 3, 2), strict=True):
        record = json.loads((path / "record.json").read_text("utf-8"))
        record["id"] = f"{path.name[0]}-2026010{stamp}T000000-0000"
        (path / "record.json").write_text(json.dumps(record), "utf-8")
    found = planned("--runs-dir", tmp_path)
    # c is newer than a, but has other query counts.
    assert [run[0] for run in found["runs"]] == ["b", "a"]
    assert found["paired"]
    assert_refused(["--runs-dir", tmp_path / "nowhere"], "no finished run in")
