"""Runs side by side: parted by protocol, paired on the same episodes, tested over the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from fewshot_bench.errors import ConfigError, UnknownName
from fewshot_bench.results.comparison import compare
from fewshot_bench.results.formats.markdown import markdown
from fewshot_bench.results.record import read_record, write_table
from fewshot_bench.results.runs import Run, load_runs
from tests.results.compared import cell, compared, methods, only
from tests.results.made_up_runs import EPISODES, scores_of, task, write_run

OTHER_PROTOCOLS: dict[str, tuple[dict[str, Any], str]] = {
    "another data set": ({"dataset": "signs"}, "dataset signs instead of marks"),
    "other content": (
        {"evaluated_digest": "f" * 64},
        "other classes or images in the evaluated split",
    ),
    "another split": ({"split": "random"}, "split random instead of official"),
    "other images": (
        {"config": {"dataset_options": {"image_size": 84}}},
        "image_size 84 instead of 28",
    ),
    "another query count": ({"task": task(query=5)}, "query 5 instead of 15"),
    "open sampling": ({"test": {"sampling": "open"}}, "sampling open instead of closed"),
    "another episode seed": ({"episode_seed": 1}, "episode_seed 1 instead of 0"),
    "other episodes": ({"episodes_digest": "a" * 64}, "other episodes"),
    "fewer episodes": ({"few": 30}, "episodes 30 instead of 40"),
    "another level": ({"test": {"level": 0.9}}, "level 0.9 instead of 0.95"),
    "one alphabet": (
        {"config": {"dataset_options": {"image_size": 28}, "within_family": True}},
        "within_family True instead of False",
    ),
}


@pytest.mark.parametrize("case", OTHER_PROTOCOLS)
def test_another_protocol_never_stands_in_the_same_table(case: str, tmp_path: Path) -> None:
    changes, words = OTHER_PROTOCOLS[case]
    write_run(tmp_path, "m1", scores_of(1))
    others = {name: value for name, value in changes.items() if name != "few"}
    write_run(tmp_path, "m2", scores_of(2)[: changes.get("few", EPISODES)], **others)
    write_run(tmp_path, "m3", scores_of(3))
    result = compared(tmp_path)
    assert [set(methods(table)) for table in result.tables] == [{"m1", "m3"}, {"m2"}]
    assert result.tables[0].differs == ()
    assert result.tables[1].differs == (words,)
    text = markdown(result)
    assert text.count("| accuracy, % |") == 2
    assert f"Not comparable with the first table: {words}." in text


def test_settings_are_columns(tmp_path: Path) -> None:
    """A method without a run in one of them has no cell there."""
    for way, shot in ((20, 1), (5, 5), (5, 1)):
        write_run(tmp_path, "m1", scores_of(way), task=task(way, shot), episodes_digest=f"{way}")
    write_run(tmp_path, "m2", scores_of(1, 0.5), task=task(5, 1), episodes_digest="5")
    table = only(compared(tmp_path))
    assert list(map(str, table.settings)) == ["5-way 1-shot", "5-way 5-shot", "20-way 1-shot"]
    assert methods(table) == ["m1", "m2"]
    assert [cell is None for cell in table.rows[1].cells] == [False, True, True]
    text = markdown(compared(tmp_path))
    assert "| accuracy, % | 5-way 1-shot | 5-way 5-shot | 20-way 1-shot |" in text
    assert text.splitlines()[5].endswith("|  |  |")


def test_most_runs_of_a_setting_decide_its_episodes(tmp_path: Path) -> None:
    write_run(tmp_path, "m0", scores_of(0), episodes_digest="odd")
    for i in (1, 2):
        write_run(tmp_path, f"m{i}", scores_of(i), episodes_digest="usual")
    write_run(tmp_path, "m0", scores_of(3), task=task(5, 1), episodes_digest="another shot")
    first, second = compared(tmp_path).tables
    assert set(methods(first)) == {"m0", "m1", "m2"}
    assert methods(second) == ["m0"]
    assert second.differs == ("other episodes",)


def test_the_best_stands_first(tmp_path: Path) -> None:
    for method, mean in (("low", 0.5), ("high", 0.95), ("middle", 0.7)):
        write_run(tmp_path, method, scores_of(0, mean))
    assert methods(only(compared(tmp_path))) == ["high", "middle", "low"]


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
    assert f"'{stopped}' did not finish; to resume it: fsb resume {stopped}" in told
    assert "is damaged" in told


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "is missing"),
        ("accuracy\n0.5\n", "no column 'episode'"),
        ("episode,accuracy\n0,word\n", "is damaged"),
        ("episode,accuracy\n0,0.5\n1,0.5\n", "has 2 episodes, its record 40; it may be cut off"),
        ("episode,accuracy\n" + "7,0.5\n" * 40, "an episode more than once"),
        (
            "episode,accuracy\n" + "".join(f"{i},0.5\n" for i in range(40)),
            "does not hold the accuracies of its record",
        ),
    ],
    ids=["missing", "no numbers", "damaged", "cut off", "repeated", "of another run"],
)
def test_a_run_without_its_episodes_is_left_out(
    content: str | None, told: str, tmp_path: Path
) -> None:
    write_run(tmp_path, "fine", scores_of(1))
    episodes = write_run(tmp_path, "other", scores_of(2)) / "episodes.csv"
    episodes.unlink() if content is None else episodes.write_text(content)
    result = compared(tmp_path)
    assert methods(only(result)) == ["fine"]
    (problem,) = result.problems
    assert told in problem
    assert str(episodes) in problem


def test_a_difference_is_scipys(tmp_path: Path) -> None:
    base, other = scores_of(1, 0.7), scores_of(2, 0.9)
    write_run(tmp_path, "base", base)
    write_run(tmp_path, "other", other)
    table = only(compared(tmp_path, "base", ranks=True))
    found = cell(table, "other").paired
    assert found is not None
    paired, expected = found.paired, stats.ttest_rel(other, base)
    difference = np.round(other - base, 14)
    assert paired.difference == pytest.approx(float(np.mean(other - base)), rel=1e-9)
    assert paired.p_t == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.p_holm == pytest.approx(expected.pvalue, rel=1e-9)  # one test: nothing to correct
    assert paired.low == pytest.approx(expected.confidence_interval(0.95).low, rel=1e-9)
    assert paired.p_wilcoxon == pytest.approx(stats.wilcoxon(difference).pvalue, rel=1e-9)
    effect = (other - base).mean() / (other - base).std(ddof=1)
    assert paired.effect_size == pytest.approx(effect, rel=1e-9)
    assert cell(table, "base").paired is None
    assert table.baselines == [table.rows[1]]


def test_ranks_are_left_out_unless_wanted(tmp_path: Path) -> None:
    write_run(tmp_path, "base", scores_of(1, 0.7))
    write_run(tmp_path, "other", scores_of(2, 0.9))
    found = cell(only(compared(tmp_path, "base")), "other").paired
    assert found is not None
    assert found.paired.p_wilcoxon is None


def test_holm_is_over_all_rows_and_settings_of_a_table(tmp_path: Path) -> None:
    """Worked by hand from scipy's p values: (3, 2, 1) times the sorted ones, never falling."""
    base = scores_of(1, 0.8)
    p_values = {}
    for shot in (1, 5):
        write_run(tmp_path, "base", base, task=task(5, shot))
    for method, shot, seed, mean in (("a", 1, 2, 0.81), ("a", 5, 3, 0.83), ("b", 5, 4, 0.815)):
        write_run(tmp_path, method, scores_of(seed, mean), task=task(5, shot))
        p_values[method, shot] = stats.ttest_rel(scores_of(seed, mean), base).pvalue
    table = only(compared(tmp_path, "base"))
    expected, highest = {}, 0.0
    for rank, key in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        highest = max(highest, min(1.0, (3 - rank) * p_values[key]))
        expected[key] = highest
    found = {(row.method, setting.shot): d.p_holm for setting, row, _, d in table.paired}
    assert found == pytest.approx(expected, rel=1e-9)


def test_a_baseline_may_be_a_runs_id_or_a_rows_name(tmp_path: Path) -> None:
    plain = {"dataset_options": {}, "method_options": {"lr": 0.1}}
    first = write_run(tmp_path, "m", scores_of(1, 0.7), config=plain)
    write_run(tmp_path, "m", scores_of(2, 0.9), config=plain | {"method_options": {"lr": 0.2}})
    for baseline in (first.name, "m (lr 0.1)"):
        table = only(compared(tmp_path, baseline))
        assert table.baselines[0] is table.rows[1]
        assert table.rows[1].runs[0].folder == first


@pytest.mark.parametrize("seed", [0, 1])
def test_a_grids_entry_is_a_baseline_whatever_the_seed(seed: int, tmp_path: Path) -> None:
    """A row of the one seed 1 is called ``control (seed 1)``; "control" means it all the same."""
    folders = {
        entry: write_run(tmp_path, "m", scores_of(len(entry)), seed=seed)
        for entry in ("control", "m", "other")
    }
    runs = [Run(folder, read_record(folder), entry) for entry, folder in folders.items()]
    for baseline in ("control", "m"):
        (base,) = only(compare(runs, baseline)).baselines
        assert base is not None
        assert base.runs[0].folder == folders[baseline]
        # Not the method, which is that of every row.
        heads = [
            line for line in markdown(compare(runs, baseline)).splitlines() if "against" in line
        ]
        assert f"| against {base.name} |" in heads[0]
    with pytest.raises(UnknownName, match="did you mean 'control'"):
        compare(runs, "contro")


def test_several_rows_of_the_baseline_never_give_the_best_of_them(tmp_path: Path) -> None:
    """The one with most settings, then the lowest seed, then the newest."""

    def write(name: str, mean: float, lr: float, seed: int = 0, shot: int = 5) -> None:
        config = {"dataset_options": {}, "method_options": {"lr": lr}}
        scores = scores_of(len(name), mean)
        write_run(tmp_path, "m", scores, config=config, id=name, seed=seed, task=task(5, shot))

    write("m-20260101T000000-a", 0.6, 0.1)
    write("m-20260102T000000-bb", 0.5, 0.2)
    write("m-20260103T000000-ccc", 0.99, 0.3, seed=1)
    assert only(compared(tmp_path, "m")).baselines[0].name == "m (seed 0, lr 0.2)"  # type: ignore[union-attr]
    write("m-20260101T000001-a", 0.6, 0.1, shot=1)
    baselines = only(compared(tmp_path, "m")).baselines
    assert [row and row.name for row in baselines] == ["m (seed 0, lr 0.1)"] * 2


def test_a_setting_without_the_baseline_is_told(tmp_path: Path) -> None:
    write_run(tmp_path, "base", scores_of(1))
    for shot in (1, 5):
        write_run(tmp_path, "other", scores_of(2, 0.7), task=task(5, shot))
    result = compared(tmp_path, "base")
    assert [row and row.name for row in only(result).baselines] == [None, "base"]
    assert "No run of the baseline on 5-way 1-shot." in markdown(result)


def test_episodes_are_paired_by_their_number(tmp_path: Path) -> None:
    base, other = scores_of(1, 0.7), scores_of(2, 0.9)
    write_run(tmp_path, "base", base)
    folder = write_run(tmp_path, "other", other)
    order = np.random.default_rng(0).permutation(EPISODES)
    write_table(folder / "episodes.csv", {"episode": order, "accuracy": other[order]})
    found = cell(only(compared(tmp_path, "base")), "other").paired
    assert found is not None
    assert found.paired.p_t == pytest.approx(stats.ttest_rel(other, base).pvalue, rel=1e-9)


def test_episodes_of_other_numbers_are_left_out(tmp_path: Path) -> None:
    write_run(tmp_path, "base", scores_of(1), id="1")
    folder = write_run(tmp_path, "other", scores_of(2), id="2")
    columns = {"episode": np.arange(EPISODES) + 1, "accuracy": scores_of(2)}
    write_table(folder / "episodes.csv", columns)
    result = compared(tmp_path, "base")
    assert methods(only(result)) == ["base"]
    assert result.problems == [f"'{folder}' numbers its episodes differently from the others."]


def test_a_new_level_is_for_all(tmp_path: Path) -> None:
    write_run(tmp_path, "a", scores_of(1))
    write_run(tmp_path, "b", scores_of(2), test={"level": 0.9})
    table = only(compared(tmp_path, "a", level=0.8))
    ends = stats.ttest_1samp(scores_of(2), 0).confidence_interval(0.8)
    assert cell(table, "b").interval.low == pytest.approx(ends.low, rel=1e-9)
    assert "80 % interval (Student" in markdown(compared(tmp_path, level=0.8))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"interval": "studnet"}, "did you mean 'student'"),
        ({"level": 95}, "--level: expected a confidence level such as 0.95, got 95"),
        ({"target": 95}, "--target: expected an accuracy such as 0.95, got 95"),
        ({"baseline": "bas"}, "did you mean 'base'"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], told: str, tmp_path: Path) -> None:
    write_run(tmp_path, "base", scores_of(1))
    with pytest.raises(ConfigError, match=told) as raised:
        compared(tmp_path, **options)
    assert isinstance(raised.value, UnknownName) is ("did you mean" in told)


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
