"""Names that tell the runs of one table apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fewshot_bench.results.layout import labels
from fewshot_bench.results.runs import Run
from tests.results.made_up_runs import made_up, scores_of

PLAIN: dict[str, Any] = {"dataset_options": {}, "method_options": {"lr": 0.001}, "steps": 10}


def run(method: str, id: str = "m-1", seed: int = 0, **config: Any) -> Run:
    record = made_up(method, scores_of(0), id, seed=seed, config=PLAIN | {"seed": seed} | config)
    return Run(Path(id), record)


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([run("a"), run("b")], ["a", "b"]),
        ([run("a"), run("b", seed=2)], ["a", "b (seed 2)"]),
        ([run("a", seed=1), run("a", seed=2)], ["a (seed 1)", "a (seed 2)"]),
        ([run("a"), run("a", steps=20), run("b")], ["a (steps 10)", "a (steps 20)", "b"]),
        (
            [run("a"), run("a", method_options={"lr": 0.1, "first_order": True})],
            ["a (lr 0.001)", "a (lr 0.1, first_order on)"],
        ),
        ([run("a", "x-11"), run("a", "x-22", device="cuda", runs_dir="y")], ["a 11", "a 22"]),
        ([run("a", "a-x-11"), run("a", "a-x-22"), run("b")], ["a 11", "a 22", "b"]),
    ],
    ids=["plain", "seed", "seeds", "steps", "options", "how it ran", "twice the same"],
)
def test_labels(runs: list[Run], expected: list[str]) -> None:
    assert labels(runs) == expected


def test_a_label_stays_short() -> None:
    many = {f"option_{i}": i for i in range(9)}
    one, other = labels([run("a"), run("a", method_options=many)])
    assert one == "a (lr 0.001)"
    assert other == "a (option_0 0, option_1 1)"
