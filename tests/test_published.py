"""The table of published figures: which run stands for a row, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from fewshot_bench.config.resolve import configure
from fewshot_bench.config.schema import OPTION_FIELDS
from tests.loading import loaded

FILE = Path(__file__).parents[1] / "benchmarks/published.py"


@pytest.fixture(scope="module")
def module() -> ModuleType:
    return loaded(FILE, "published")


@pytest.fixture
def figure(module: ModuleType) -> Any:
    figures = module.published(FILE.with_suffix(".toml"))
    return next(f for f in figures if (f.method, f.preset) == ("maml", "paper"))


def record(accuracy: float = 0.985, half_width: float = 0.001, **chosen: Any) -> dict[str, Any]:
    config = {"preset": "paper", "dataset": "omniglot", "way": 5, "shot": 1, "steps": 60_000}
    names = ["preset", "dataset", "way", "shot", *chosen]
    return {
        "id": "maml-omniglot-5w1s-20261125T163530-5569",
        "method": "maml",
        "evaluated_from": None,
        "config": config
        | {name: {} for name in OPTION_FIELDS}
        | {"metrics": [], "observers": []}
        | chosen
        | {"sources": dict.fromkeys(names, "user")},
        "test": {"accuracy": accuracy, "half_width": half_width},
        "training": {"seconds": 7200.0},
        "environment": {"commit": "abc"},
        "device": {"name": "a device"},
    }


def test_the_figures_are_the_papers(figure: Any) -> None:
    assert (figure.dataset, figure.way, figure.shot) == ("omniglot", 5, 1)
    assert figure.words == "98.70 ± 0.4 (Finn et al. 2017)"
    assert figure.command == "fsb run maml --dataset omniglot --way 5 --shot 1 --preset paper"


def test_a_run_stands_for_a_row_if_nothing_else_was_chosen(module: ModuleType, figure: Any) -> None:
    assert module.stands_for(record(seed=3), figure)
    for other in ({"steps": 100}, {"shot": 5}, {"preset": "quick"}, {"dataset": "glyphs"}):
        assert not module.stands_for(record(**other), figure)
    assert not module.stands_for(record() | {"evaluated_from": "x"}, figure)


def test_a_row_may_ask_for_options(module: ModuleType) -> None:
    figures = module.published(FILE.with_suffix(".toml"))
    figure = next(f for f in figures if f.cite == "Finn et al. 2017, first order")
    assert figure.command.endswith("--shot 1 --preset paper --first-order")
    chosen = record(checkpoint_every="10m", first_order=True)
    first_order = {"method_options": {"first_order": True}}
    assert module.stands_for(chosen | {"config": chosen["config"] | first_order}, figure)
    assert not module.stands_for(record(), figure)


def test_what_is_said_of_a_run(module: ModuleType, figure: Any) -> None:
    def cells(*records: dict[str, Any]) -> list[str]:
        line = module.row(figure, [SimpleNamespace(record=r) for r in records])
        return [cell.strip() for cell in line.split("|")[5:-1]]

    told = cells(record(0.985, 0.001))
    assert told[0].startswith("98.50 ± 0.10: `fsb run maml --preset paper")
    assert told[1:] == ["no", "yes", "120 min", "a device", "abc"]
    assert cells(record(0.97, 0.02))[1:3] == ["yes", "no (-1.70)"]
    assert cells(record(0.2, 0.0))[0].startswith("20.00 (no variation)")
    assert cells()[0].startswith("unmeasured: `fsb run maml")


def test_every_row_is_a_command_that_can_be_run(module: ModuleType) -> None:
    figures = list(module.published(FILE.with_suffix(".toml")))
    for figure in figures:
        task = {"dataset": figure.dataset, "way": figure.way, "shot": figure.shot}
        options = {name.replace("-", "_"): value for name, value in figure.options.items()}
        config = configure(figure.method, preset=figure.preset, **task, **options)
        assert config.steps >= 600
        if figure.dataset == "omniglot":
            assert config.shot + config.query + config.unlabeled <= 20
    lines = module.table([]).splitlines()
    assert sum("unmeasured" in line for line in lines if line.startswith("| ")) == len(figures)
