"""Names of classes are read from the data of the run, or ids stand for them."""

from __future__ import annotations

from pathlib import Path

from fewshot_bench.config.resolve import configure
from fewshot_bench.figures import Request
from fewshot_bench.figures.classes import names_of
from fewshot_bench.runs.context import RunContext
from tests.figures.drawn_runs import evaluated, loaded

SMALL = {"train_classes": 2, "validation_classes": 0, "test_classes": 3, "alphabet_size": 2}


def test_names_and_families_of_a_run(tmp_path: Path) -> None:
    own = SMALL | {"cache_dir": str(tmp_path / "cache")}
    config = configure("nearest-centroid", dataset="glyphs", **own)
    splits = RunContext(config).data.splits
    evaluated(tmp_path / "runs", config=config.to_dict(), dataset_digest=splits.digest)
    ask = Request()
    names = names_of(loaded(tmp_path / "runs")[0], ask)
    assert names is not None
    assert names.classes == splits.test.class_names
    assert names.families == ("test-00", "test-00", "test-01")
    assert not ask.left_out


def test_data_that_changed_or_are_not_here(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("FSB_DATA", raising=False)
    own = {"cache_dir": str(tmp_path / "cache")}
    changed = configure("nearest-centroid", dataset="glyphs", **SMALL, **own)
    absent = configure("nearest-centroid", dataset="omniglot", **own)
    evaluated(tmp_path / "runs", "absent", config=absent.to_dict())
    evaluated(tmp_path / "runs", "changed", config=changed.to_dict())
    for run, why in zip(loaded(tmp_path / "runs"), ("not found", "differ in content"), strict=True):
        ask = Request()
        assert names_of(run, ask) is None
        (line,) = ask.left_out
        assert line.startswith("names of the classes, shown by their ids: ")
        assert why in line
