"""Times beside accuracies: medians over seeds, time to a target, devices."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from fewshot_bench.errors import RecordError
from fewshot_bench.results.blocks import blocks
from fewshot_bench.results.comparison import Comparison, compare, seconds_to, speed_of
from fewshot_bench.results.formats.markdown import markdown
from fewshot_bench.results.runs import Run, load_runs
from tests.results.made_up_runs import scores_of, write_curve, write_run

TRAINED = {"training": {"steps": 4, "seconds": 9.0, "warmup_seconds": 0.0, "engine": "eager"}}
STEP_MS = [1000.0, 2000.0, 3000.0, 4000.0]


def trained(runs: Path, curve: dict[int, float], **changes: Any) -> Run:
    folder = write_run(runs, "m", scores_of(1), **TRAINED | changes)
    write_curve(folder, STEP_MS, curve)
    ((found,), _) = load_runs([folder])
    return found


@pytest.mark.parametrize(
    ("target", "seconds"),
    [(0.5, 3.0), (0.6, 3.0), (0.61, 10.0), (0.8, 10.0), (0.81, math.inf)],
)
def test_time_to_a_target_worked_by_hand(target: float, seconds: float, tmp_path: Path) -> None:
    """Validated after steps 2 and 4 (1 + 2 and 1 + 2 + 3 + 4 seconds) at 60 and 80 %."""
    assert seconds_to(trained(tmp_path, {2: 0.6, 4: 0.8}), target) == seconds


def test_a_curve_that_falls_again_had_reached_it(tmp_path: Path) -> None:
    assert seconds_to(trained(tmp_path, {1: 0.9, 2: 0.5, 4: 0.95}), 0.9) == 1.0


def test_what_never_validated_or_trained_has_no_time(tmp_path: Path) -> None:
    assert seconds_to(trained(tmp_path, {}), 0.5) is None
    assert seconds_to(trained(tmp_path, {2: 0.6}, training=None), 0.5) is None
    assert seconds_to(trained(tmp_path, {2: 0.6}, evaluated_from="m"), 0.5) is None


@pytest.mark.parametrize("damage", ["validation.csv", "steps.csv", "short", "column"])
def test_a_damaged_curve_is_told_and_the_run_still_shown(damage: str, tmp_path: Path) -> None:
    run = trained(tmp_path, {4: 0.9})
    if damage == "short":
        (run.folder / "steps.csv").write_text("step,step_ms\n1,1000.0\n")
    elif damage == "column":
        (run.folder / "steps.csv").write_text("step\n1\n")
    else:
        (run.folder / damage).unlink()
    with pytest.raises(RecordError, match=r"missing|lacks"):
        seconds_to(run, 0.5)
    result = compare([run], target=0.5)
    assert len(result.tables[0].rows) == 1
    (problem,) = result.problems
    assert str(run.folder) in problem


def test_medians_over_seeds(tmp_path: Path) -> None:
    runs = [
        trained(
            tmp_path,
            {step: 0.9},
            seed=step,
            parameters=10,
            timing={
                "step_ms": {"median": median, "p95": 2 * median},
                "tasks_per_s": 1000 / median,
                "adapt_ms": None,
                "predict_ms": 1.0,
                "peak_memory_bytes": 10**6,
            },
        )
        for step, median in ((1, 10.0), (2, 40.0), (4, 20.0))
    ]
    speed = speed_of(runs, 0.9)
    assert (speed.step_ms, speed.step_ms_p95, speed.tasks_per_s) == (20, 40, 50)
    assert (speed.adapt_ms, speed.predict_ms) == (None, 1)
    assert (speed.target_seconds, speed.target_reached) == (3, 3)
    assert speed.training_seconds == 9


@pytest.mark.parametrize(
    ("curves", "text"),
    [
        ([0.9], "1.00"),
        ([0.5], "not reached"),
        ([0.5, 0.5], "not reached"),
        ([0.9, 0.9, 0.5], "1.00 (2 of 3)"),
        ([0.9, 0.5], "only 1 of 2"),
        ([0.9, 0.5, 0.5], "only 1 of 3"),
    ],
)
def test_how_many_seeds_reach_the_target(curves: list[float], text: str, tmp_path: Path) -> None:
    runs = [trained(tmp_path, {1: best}, seed=seed) for seed, best in enumerate(curves)]
    assert f" | {text} | " in markdown(compare(runs, target=0.9))


def shown(tmp_path: Path, **options: Any) -> Comparison:
    return compare(load_runs([tmp_path])[0], **options)


def test_times_of_different_devices_are_flagged(tmp_path: Path) -> None:
    step = {"median": 1.0, "p95": 1.0}
    timing = {"step_ms": step, "tasks_per_s": 1, "adapt_ms": 1, "predict_ms": 1}
    write_run(tmp_path, "m1", scores_of(1), timing=timing)
    write_run(tmp_path, "m2", scores_of(2, 0.8), timing=timing)
    assert "device" not in markdown(shown(tmp_path))
    gpu = {"type": "cuda", "name": "a GPU"}
    write_run(tmp_path, "m3", scores_of(3, 0.7), timing=timing, device=gpu)
    write_run(tmp_path, "m2", scores_of(4, 0.8), timing=timing, device=gpu, seed=1)
    text = markdown(shown(tmp_path))
    assert "Times of different devices cannot be compared: A a processor; B a GPU." in text
    lines = {line.split(" | ")[0]: line for line in text.split("| speed")[1].splitlines()}
    assert lines["| m1"].endswith("| A |")
    assert lines["| m2, 2 seeds"].endswith("| A+B |")
    assert lines["| m3"].endswith("| B |")


def test_a_table_without_times_has_no_block_of_them(tmp_path: Path) -> None:
    write_run(tmp_path, "m1", scores_of(1))
    result = shown(tmp_path)
    assert [block.heads[0] for block in blocks(result.tables[0], result)] == ["accuracy, %"]
