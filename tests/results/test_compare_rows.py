"""Which runs share a row: one configuration, its training seeds, its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewshot_bench.results.comparison import Comparison, compare
from fewshot_bench.results.formats.markdown import markdown
from fewshot_bench.results.layout import lay_out
from fewshot_bench.results.record import write_table
from fewshot_bench.results.runs import Run, load_runs
from fewshot_bench.results.sentences import sentences
from fewshot_bench.results.stats import (
    INTERVALS,
    bootstrap_interval,
    class_interval,
    detectable_over_seeds,
    hierarchical_interval,
    paired_over_seeds,
    seeds_interval,
    student_interval,
)
from tests.results.made_up_runs import made_up, scores_of, task, write_run

TRAINED = {"steps": 10, "seconds": 1.0, "warmup_seconds": 0.0, "engine": "eager"}


def run(
    id: str = "m-1", seed: int = 0, shot: int = 5, typed: tuple[str, ...] = (), **config: Any
) -> Run:
    whole = {"dataset_options": {}, "preset": "quick", "steps": 10, "lr": 0.1} | config
    whole["sources"] = dict.fromkeys(typed, "user")
    record = made_up(
        "m", scores_of(0), id, seed=seed, config=whole, task=task(5, shot), training=TRAINED
    )
    return Run(Path(id), record)


def rows(*runs: Run) -> list[list[str]]:
    """Ids of the runs of each row."""
    (layout,), _ = lay_out(runs)
    return [[run.record["id"] for run in row] for row in layout.rows]


def test_seeds_share_a_row() -> None:
    assert rows(run("a", seed=2), run("b", seed=0), run("c", seed=1)) == [["b", "c", "a"]]


def test_what_a_preset_gives_each_setting_does_not_part_them() -> None:
    assert rows(run("a", shot=1, steps=10), run("b", shot=5, steps=20)) == [["a", "b"]]


def test_what_somebody_typed_parts_settings() -> None:
    typed = run("a", shot=1, steps=20, typed=("steps",))
    assert rows(typed, run("b", shot=5, steps=10)) == [["a"], ["b"]]


def test_typing_what_the_preset_says_parts_nothing() -> None:
    typed = run("a", seed=0, steps=10, typed=("steps",))
    assert rows(typed, run("b", seed=1), run("c", shot=1, steps=99)) == [["c", "a", "b"]]


def test_what_differs_in_a_setting_parts_rows() -> None:
    """Also where nobody typed it: an older version's preset may have said otherwise."""
    assert rows(run("a"), run("b", steps=20)) == [["a"], ["b"]]


def test_presets_and_versions_are_rows_of_their_own() -> None:
    assert rows(run("a"), run("b", shot=1, preset="paper")) == [["a"], ["b"]]
    newer = run("b", seed=1)
    newer.record["plugin"] = {"distribution": "made-up", "version": "2"}
    assert rows(run("a"), newer) == [["a"], ["b"]]


def test_where_and_how_it_ran_does_not_part_seeds() -> None:
    other = run("b", seed=1, runs_dir="y", device="cuda", observers=["x"], task_chunk=4)
    assert rows(run("a", runs_dir="x", device="cpu"), other) == [["a", "b"]]


def test_the_newest_of_the_same_counts() -> None:
    older, newer = run("m-z-20260101T000000-ffff"), run("m-a-20260102T000000-0000")
    (layout,), told = lay_out([newer, older])
    assert layout.rows == [[newer]]
    assert told == [
        "'m-z-20260101T000000-ffff' duplicates m of seed 0 on 5-way 5-shot; using "
        "the newer 'm-a-20260102T000000-0000'."
    ]


def test_a_method_without_parameters_has_no_seeds(tmp_path: Path) -> None:
    """Nothing is trained: three seeds of it are one result, and not three."""
    for seed in range(3):
        write_run(tmp_path, "m", scores_of(0), seed=seed, parameters=0, id=f"m-{seed}")
    result = compare(load_runs([tmp_path])[0])
    (row,) = result.tables[0].rows
    assert row.title == "m"
    assert result.problems == []


def seeded(tmp_path: Path, **counts: int) -> Comparison:
    for method, count in counts.items():
        for seed in range(count):
            scores = scores_of(seed + 10 * len(method), 0.6 + 0.05 * len(method))
            write_run(tmp_path, method, scores, seed=seed, training=TRAINED)
    return compare(load_runs([tmp_path])[0])


def test_seeds_are_told_in_the_row(tmp_path: Path) -> None:
    result = seeded(tmp_path, a=3, bb=1)
    titles = {row.title: len(row.runs) for row in result.tables[0].rows}
    assert titles == {"a, 3 seeds": 3, "bb": 1}
    for seed in range(2):
        write_run(tmp_path, "a", scores_of(seed), seed=seed, task=task(5, 1), training=TRAINED)
    (table,) = compare(load_runs([tmp_path])[0]).tables
    assert {row.title for row in table.rows} == {"a, 2 to 3 seeds", "bb"}


def test_a_cell_of_several_seeds_is_their_mean(tmp_path: Path) -> None:
    (row,) = seeded(tmp_path, a=3).tables[0].rows
    (cell,) = row.cells
    assert cell is not None
    assert cell.scores.shape == (3, 40)
    assert cell.accuracy == pytest.approx(np.mean([scores_of(s + 10, 0.65) for s in range(3)]))
    assert cell.kind == "hierarchical"


def test_several_seeds_of_both_are_about_the_methods(tmp_path: Path) -> None:
    result = seeded(tmp_path, a=3, bbbb=4)
    (table,) = compare([run for row in result.tables[0].rows for run in row.runs], "a").tables
    ((_, _, cell, found),) = table.paired
    base = table.rows[1].cells[0]
    assert base is not None
    assert found.seeds == 3
    expected = paired_over_seeds(cell.scores[:3], base.scores)
    assert found.paired == expected
    assert expected.p_t is not None
    (text,) = sentences(table, Comparison([table]))
    assert text.startswith("On 5-way 5-shot, bbbb is better than a by ")
    assert text.endswith(" after Holm) over 3 training seeds of each.")


def test_seeds_that_find_nothing_tell_what_they_would_have_found(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path, "a", scores_of(seed, 0.8), seed=seed, training=TRAINED)
        write_run(tmp_path, "b", scores_of(seed + 50, 0.8), seed=seed, training=TRAINED)
    (table,) = compare(load_runs([tmp_path])[0], "a").tables
    ((_, _, cell, found),) = table.paired
    base = next(row for row in table.rows if row.name == "a").cells[0]
    assert base is not None
    assert found.detectable == detectable_over_seeds(cell.scores, base.scores)
    (text,) = sentences(table, Comparison([table]))
    assert "no difference found between b and a" in text
    told = f"of about {100 * found.detectable:.2f} points would have been (power 80 %)."
    assert text.endswith(f": with 3 seeds and 40 episodes one {told}")


def test_one_seed_of_either_is_about_trainings(tmp_path: Path) -> None:
    result = seeded(tmp_path, a=1, bbbb=4)
    (table,) = compare([run for row in result.tables[0].rows for run in row.runs], "a").tables
    ((_, _, cell, found),) = table.paired
    assert found.seeds == 0
    assert found.paired.difference == pytest.approx(cell.scores.mean() - scores_of(10, 0.65).mean())
    (text,) = sentences(table, Comparison([table]))
    assert text.startswith(
        "On 5-way 5-shot, the 4 trainings of bbbb are on average better than this trained a by "
    )


KINDS = {
    "student": lambda scores: student_interval(scores.mean(0)),
    "percentile": lambda scores: bootstrap_interval(scores.mean(0), method="percentile"),
    "bca": lambda scores: bootstrap_interval(scores.mean(0), method="BCa"),
    "hierarchical": hierarchical_interval,
    "seeds": lambda scores: seeds_interval(scores.mean(1)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_interval(kind: str, tmp_path: Path) -> None:
    (row,) = seeded(tmp_path, a=3).tables[0].rows
    result = compare(row.runs, interval=kind)
    (cell,) = result.tables[0].column(0)
    assert cell.kind == kind
    assert cell.interval == KINDS[kind](cell.scores)
    assert f"95 % interval ({INTERVALS[kind]}). It covers" in markdown(result)


def test_one_seed_beside_several_is_told_apart(tmp_path: Path) -> None:
    text = markdown(seeded(tmp_path, a=3, bb=1))
    assert "± where there is one training seed is the half width of a 95 % interval (S" in text
    assert "± where there are several is the half width of a 95 % interval (training s" in text


def test_classes_as_clusters_need_the_classes(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "m", scores_of(0))
    (run,), _ = load_runs([folder])
    lost = compare([run], interval="classes")
    assert lost.tables == []
    assert "has no column 'class_0'" in lost.problems[0]
    ids = np.random.default_rng(0).integers(0, 30, (40, 5))
    columns = {f"class_{c}": ids[:, c] for c in range(5)}
    write_table(
        folder / "episodes.csv", {"episode": range(40), "accuracy": scores_of(0), **columns}
    )
    (table,) = compare([run], interval="classes").tables
    (cell,) = table.column(0)
    assert cell.interval == class_interval(scores_of(0), ids)
