"""Runs side by side: grouped by protocol, paired on the same episodes, exported."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_up_runs import EPISODES, scores_of, write_run
from scipy import stats

from fewshot_bench.results import export
from fewshot_bench.results.compare import Comparison, compare, load_runs
from fewshot_bench.results.tables import write_table

DAGGER = {"transductive": True}
ONE_SHOT = {"way": 5, "shot": 1, "query": 15, "unlabelled": 0, "distractors": 0}

OTHER_PROTOCOLS = {
    "another data set": ({"dataset": "signs"}, "dataset signs instead of marks"),
    "other content": ({"dataset_digest": "f" * 64}, "data of other content"),
    "another split": ({"split": "random"}, "split random instead of official"),
    "other images": (
        {"config": {"dataset_options": {"image_size": 84}}},
        "image_size 84 instead of 28",
    ),
    "another task": ({"task": ONE_SHOT}, "shot 1 instead of 5"),
    "open sampling": ({"test": {"sampling": "open"}}, "sampling open instead of closed"),
    "another episode seed": ({"episode_seed": 1}, "episode_seed 1 instead of 0"),
    "other episodes": ({"episodes_digest": "a" * 64}, "other episodes"),
    "fewer episodes": ({"test": {"episodes": 30}}, "episodes 30 instead of 40"),
    "another level": ({"test": {"level": 0.9}}, "level 0.9 instead of 0.95"),
    "one alphabet": (
        {"config": {"dataset_options": {"image_size": 28}, "within_family": True}},
        "within_family True instead of False",
    ),
}


def compared(runs: Path, baseline: str | None = None) -> Comparison:
    found, problems = load_runs([runs])
    result = compare(found, baseline)
    return Comparison(result.groups, problems + result.problems)


@pytest.mark.parametrize("case", OTHER_PROTOCOLS)
def test_another_protocol_never_stands_in_the_same_table(case: str, tmp_path: Path) -> None:
    changes, words = OTHER_PROTOCOLS[case]
    write_run(tmp_path, "m1", scores_of(1))
    write_run(tmp_path, "m2", scores_of(2), **changes)
    write_run(tmp_path, "m3", scores_of(3))
    result = compared(tmp_path)
    methods = [{row.run.record["method"] for row in group.rows} for group in result.groups]
    assert methods == [{"m1", "m3"}, {"m2"}]
    assert result.groups[0].differs == ()
    assert result.groups[1].differs == (words,)
    text = export.markdown(result)
    assert text.count("| method |") == 2
    assert f"Not comparable with the first table: {words}." in text


def test_what_only_training_saw_does_not_part_runs(tmp_path: Path) -> None:
    write_run(tmp_path, "m1", scores_of(1))
    options = {"image_size": 28, "train_rotations": False}
    write_run(tmp_path, "m2", scores_of(2), config={"dataset_options": options}, seed=3)
    (group,) = compared(tmp_path).groups
    assert {row.run.label for row in group.rows} == {"m1", "m2 (seed 3)"}


def test_the_best_stands_first(tmp_path: Path) -> None:
    for method, mean in (("low", 0.5), ("high", 0.95), ("middle", 0.7)):
        write_run(tmp_path, method, scores_of(0, mean))
    (group,) = compared(tmp_path).groups
    assert [row.run.label for row in group.rows] == ["high", "middle", "low"]
    assert group.baseline is None


def test_what_did_not_finish_or_is_broken_is_told_and_hides_no_other(tmp_path: Path) -> None:
    write_run(tmp_path, "fine", scores_of(1))
    failed = write_run(tmp_path, "bad", scores_of(2), status="failed", error="step 3: no")
    stopped = write_run(tmp_path, "stopped", scores_of(2), status="interrupted")
    (write_run(tmp_path, "torn", scores_of(2)) / "record.json").write_text("{")
    runs, problems = load_runs([tmp_path, failed, stopped])
    assert [run.record["method"] for run in runs] == ["fine"]
    assert len(problems) == 3
    told = "\n".join(problems)
    assert f"'{failed}': failed: step 3: no" in told
    assert f"'{stopped}': interrupted" in told
    assert "is damaged" in told


def test_a_baseline_is_paired_as_scipy_does(tmp_path: Path) -> None:
    base, other = scores_of(1, 0.7), scores_of(2, 0.9)
    write_run(tmp_path, "base", base)
    write_run(tmp_path, "other", other)
    (group,) = compared(tmp_path, "base").groups
    paired = group.rows[0].paired
    expected = stats.ttest_rel(other, base)
    assert paired is not None
    assert paired.difference == pytest.approx(float(np.mean(other - base)), abs=1e-12)
    assert paired.p_t == pytest.approx(expected.pvalue, rel=1e-9)
    assert paired.low == pytest.approx(expected.confidence_interval(0.95).low, abs=1e-12)
    assert group.baseline is group.rows[1]
    assert "Differences are from base on the same episodes" in export.caption(group)


def test_a_baseline_may_be_a_runs_id(tmp_path: Path) -> None:
    first = write_run(tmp_path, "m", scores_of(1, 0.7))
    write_run(tmp_path, "m", scores_of(2, 0.9), seed=1)
    (group,) = compared(tmp_path, first.name).groups
    assert group.baseline is not None
    assert group.baseline.run.folder == first


@pytest.mark.parametrize("lost", ["missing", "short", "damaged"])
def test_episodes_that_cannot_be_paired_are_told(lost: str, tmp_path: Path) -> None:
    write_run(tmp_path, "base", scores_of(1))
    table = write_run(tmp_path, "other", scores_of(2)) / "episodes.csv"
    if lost == "missing":
        table.unlink()
    else:
        table.write_text("accuracy\n0.5\n" if lost == "short" else "accuracy\nword\n")
    result = compared(tmp_path, "base")
    assert len(result.groups[0].rows) == 2
    assert len(result.problems) == 1
    assert "cannot be paired" in result.problems[0]


def test_times_of_different_devices_are_marked(tmp_path: Path) -> None:
    write_run(tmp_path, "m1", scores_of(1))
    write_run(tmp_path, "m2", scores_of(2))
    assert "different devices" not in export.caption(compared(tmp_path).groups[0])
    write_run(tmp_path, "m3", scores_of(3), device={"type": "cuda", "name": "a GPU"})
    assert "Times are of different devices" in export.caption(compared(tmp_path).groups[0])


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        ("closed", "covers the choice of episodes from these test images; not new images, classes"),
        ("open", "covers new images of these test classes, as no image is used twice; not new cl"),
    ],
)
def test_the_caption_says_what_the_interval_covers(
    sampling: str, words: str, tmp_path: Path
) -> None:
    write_run(tmp_path, "m", scores_of(1), test={"sampling": sampling})
    assert words in export.caption(compared(tmp_path).groups[0])


@pytest.fixture
def two_tables(tmp_path: Path) -> Comparison:
    """Two protocols; names that markup would trip over; a baseline; a constant difference."""
    scores = scores_of(1, 0.7)
    write_run(tmp_path, "base", scores)
    write_run(tmp_path, "a_b|c%", scores_of(2, 0.9), test=DAGGER)
    write_run(tmp_path, "same", scores)
    write_run(tmp_path, "base", scores_of(3), task=ONE_SHOT)
    return compared(tmp_path, "base")


def test_several_runs_of_the_baseline_never_give_the_best_of_them(tmp_path: Path) -> None:
    """The lowest seed is compared with; of equal ones the newest."""
    write_run(tmp_path, "base", scores_of(1, 0.6), seed=1)
    for name, mean in (("base-20260101", 0.6), ("base-20260102", 0.5)):
        write_run(tmp_path, "base", scores_of(1, mean), id=name)
    write_run(tmp_path, "base", scores_of(1, 0.99), seed=2)
    (group,) = compared(tmp_path, "base").groups
    assert group.baseline is not None
    assert group.baseline.run.record["id"] == "base-20260102"
    assert [row.paired is None for row in group.rows] == [False, False, False, True]


def test_episodes_are_paired_by_their_number(tmp_path: Path) -> None:
    base, other = scores_of(1, 0.7), scores_of(2, 0.9)
    write_run(tmp_path, "base", base)
    folder = write_run(tmp_path, "other", other)
    order = np.random.default_rng(0).permutation(EPISODES)
    write_table(folder / "episodes.csv", {"episode": order, "accuracy": other[order]})
    (group,) = compared(tmp_path, "base").groups
    paired = group.rows[0].paired
    assert paired is not None
    assert paired.p_t == pytest.approx(stats.ttest_rel(other, base).pvalue, rel=1e-9)


@pytest.mark.parametrize(
    ("numbers", "told"),
    [(np.arange(EPISODES) + 1, "other episodes"), (np.zeros(EPISODES), "more than once")],
)
def test_other_episodes_are_not_paired(numbers: np.ndarray, told: str, tmp_path: Path) -> None:
    write_run(tmp_path, "base", scores_of(1))
    folder = write_run(tmp_path, "other", scores_of(2))
    write_table(folder / "episodes.csv", {"episode": numbers, "accuracy": scores_of(2)})
    result = compared(tmp_path, "base")
    assert all(row.paired is None for row in result.groups[0].rows)
    assert result.groups[0].winner is None
    assert len(result.problems) == 1
    assert told in result.problems[0]


@pytest.mark.parametrize(
    ("means", "wins"),
    [((0.95, 0.7, 0.5), True), ((0.9, 0.9, 0.5), False), ((0.9,), False)],
    ids=["clear", "a close second", "alone"],
)
def test_the_best_is_bold_only_if_it_beats_each_other_run(
    means: tuple[float, ...], wins: bool, tmp_path: Path
) -> None:
    for i, mean in enumerate(means):
        write_run(tmp_path, f"m{i}", scores_of(i, mean))
    result = compared(tmp_path)
    assert (result.groups[0].winner is result.groups[0].rows[0]) is wins
    assert ("| **m0** | **" in export.markdown(result)) is wins
    assert (r"\textbf{m0}" in export.latex(result)) is wins
    assert ("Bold: better than every other" in export.markdown(result)) is wins


def test_runs_are_found_below_by_their_record_and_once(tmp_path: Path) -> None:
    deep = write_run(tmp_path / "a" / "b", "deep", scores_of(1))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "link").symlink_to(deep)
    (tmp_path / "c" / "loop").symlink_to(tmp_path)
    write_run(tmp_path / ".hidden", "hidden", scores_of(1))
    for paths in ([tmp_path], [deep / "record.json"], [tmp_path / "c"], [deep, tmp_path]):
        runs, problems = load_runs(paths)
        assert [run.record["method"] for run in runs] == ["deep"]
        assert problems == []


def test_a_folder_without_runs_is_told(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "m", scores_of(1))
    (tmp_path / "empty").mkdir()
    runs, problems = load_runs([tmp_path / "empty", tmp_path / "runs"])
    assert len(runs) == 1
    assert len(problems) == 1
    assert "empty" in problems[0]


def test_markdown_is_a_table(two_tables: Comparison) -> None:
    text = export.markdown(two_tables)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 * 2 + 4
    for group, table in zip(two_tables.groups, (rows[:5], rows[5:]), strict=True):
        heads, _ = export.filled(group)
        assert {row.replace(r"\|", "").count("|") for row in table} == {len(heads) + 1}
    assert "difference" in rows[0]
    assert "difference" not in rows[5]  # a table of one run, with nothing to pair
    assert r"a_b\|c%" in text
    assert "+0.00 ± 0.00 (no variation)" in text
    assert text.count("† transductive") == 1


def test_latex_is_balanced_and_escaped(two_tables: Comparison) -> None:
    text = export.latex(two_tables)
    for word in ("table", "tabular"):
        assert text.count(rf"\begin{{{word}}}") == text.count(rf"\end{{{word}}}") == 2
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    for group, table in zip(two_tables.groups, (rows[:4], rows[4:]), strict=True):
        heads, _ = export.filled(group)
        assert {row.replace(r"\&", "").count("&") for row in table} == {len(heads) - 1}
    assert r"a\_b$|$c\%" in text
    assert "±" not in text
    assert "†" not in text


@pytest.mark.parametrize("exporter", [export.to_csv, export.to_json])
def test_exports_for_programs_hold_the_numbers_in_full(
    exporter: Callable[[Comparison], str], two_tables: Comparison
) -> None:
    text = exporter(two_tables)
    rows = [row for group in two_tables.groups for row in group.rows]
    if exporter is export.to_csv:
        found = list(csv.DictReader(io.StringIO(text)))
        assert len({line["protocol"] for line in found}) == 2
    else:
        parsed = json.loads(text)
        found = [line for group in parsed["groups"] for line in group["rows"]]
        assert parsed["groups"][0]["rows"][0]["paired"]["n"] == EPISODES
    assert [float(line["accuracy"]) for line in found] == [
        row.run.record["test"]["accuracy"] for row in rows
    ]
    assert [line["run"] for line in found] == [row.run.record["id"] for row in rows]
