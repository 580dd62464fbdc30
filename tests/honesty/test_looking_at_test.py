"""Settings are tuned on the validation split, and tables count the uses of the test split.

``fsb eval --part validation`` evaluates the validation split; ``fsb run`` validates a method
without training as well. A result on the validation split is stored separately and never shares a
table with a test result. The line below a table counts the configurations of each method that were
tested on its protocol, shown or not: the best of twelve is biased upward by the selection.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import fewshot_bench
from fewshot_bench.errors import ConfigError
from fewshot_bench.figures.series import short_data
from fewshot_bench.report.page import html
from fewshot_bench.results.comparison import compare
from fewshot_bench.results.formats.data import to_csv, to_json
from fewshot_bench.results.formats.latex import latex
from fewshot_bench.results.formats.markdown import markdown
from fewshot_bench.results.formats.terminal import terminal
from fewshot_bench.results.record import read_record
from fewshot_bench.results.runs import load_runs
from fewshot_bench.results.sentences import best_sentences, heading
from tests.honesty.tiny_folder import SETTINGS

OWN: dict[str, Any] = {
    **{n: v for n, v in SETTINGS.items() if n != "color"},
    "dataset": "glyphs", "train_classes": 8, "validation_classes": 4, "test_classes": 8,
}  # fmt: skip
UNTRAINED = {n: v for n, v in OWN.items() if n != "backbone_channels"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for the runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def folder_of(record: dict[str, Any]) -> Path:
    """Where a run is."""
    return Path("runs") / record["id"]


def texts(comparison: Any) -> list[str]:
    """The comparison in every format for readers, white space made one."""
    shown = (
        terminal(comparison, 200, lambda text, _: text),
        markdown(comparison),
        latex(comparison),
        html(comparison),
    )
    return [" ".join(text.split()) for text in shown]


def test_the_validation_split_of_a_run() -> None:
    """An evaluation of the validation split gives the accuracy that chose the weights."""
    run = fewshot_bench.run("protonet", **OWN)
    record = fewshot_bench.evaluate(str(folder_of(run)), part="validation", episodes=2)
    assert (record["part"], record["test"]) == ("validation", None)
    assert record["validation"]["accuracy"] == run["validation"]["accuracy"]
    assert record["validation"]["half_width"] is not None
    assert run["part"] == "test"
    assert any("may have chosen the weights" in note for note in record["notes"])
    written = read_record(folder_of(record))
    assert written["test"] is None


def test_validation_and_test_share_no_table() -> None:
    """Results on the two splits are in two tables, one of which says validation split."""
    run = fewshot_bench.run("protonet", **OWN)
    fewshot_bench.evaluate(str(folder_of(run)), part="validation")
    runs, problems = load_runs([Path("runs")])
    assert not problems
    comparison = compare(runs)
    found = [heading(table) for table in comparison.tables]
    assert sorted("validation split" in text for text in found) == [False, True]
    assert all(len(table.rows) == 1 for table in comparison.tables)
    for text in texts(comparison):
        assert "validation split" in text
        assert "which episodes were drawn from these validation images" in text
    parts = [table["protocol"]["part"] for table in json.loads(to_json(comparison))["tables"]]
    assert sorted(parts) == ["test", "validation"]
    assert len({short_data(run) for run in runs}) == 2


def test_a_method_without_training_is_validated() -> None:
    """``fsb run`` of a method without training also reports the validation accuracy."""
    run = fewshot_bench.run("nearest-centroid", **UNTRAINED)
    assert run["training"] is None
    assert run["validation"]["episodes"] == UNTRAINED["validation_episodes"]
    again = fewshot_bench.evaluate(str(folder_of(run)), part="validation", episodes=2)
    assert again["validation"]["accuracy"] == run["validation"]["accuracy"]
    without = fewshot_bench.run("nearest-centroid", **UNTRAINED | {"validation_classes": 0})
    assert without["validation"] is None
    with pytest.raises(ConfigError, match="has no validation split"):
        fewshot_bench.evaluate(str(folder_of(without)), part="validation")
    with pytest.raises(ConfigError, match="--part: expected one of test, validation"):
        fewshot_bench.evaluate(str(folder_of(run)), part="train")


def test_looks_are_counted() -> None:
    """Three settings of one method, of which a table shows one, are three looks at the test."""
    records = [fewshot_bench.run("protonet", **OWN, backbone_statistics=s) for s in ("batch",)]
    for statistics in ("running", "batch"):
        for shot in (1, 2):
            settings = OWN | {"backbone_statistics": statistics, "train_shot": shot}
            records.append(fewshot_bench.run("protonet", **settings))
    shown, _ = load_runs([folder_of(records[-1])])
    comparison = compare(shown)
    (cell,) = (cell for _, _, cell in comparison.tables[0].filled)
    assert cell.looks is not None
    assert cell.looks.configurations == 4  # the first is one of them again
    for text in texts(comparison):
        assert "protonet 4. Training seeds are no looks" in text
    best = cell.looks.best - 1e-9 < cell.accuracy
    said = f"({'best' if best else 'one'} of 4 looks at the test split)"
    assert said in " ".join(best_sentences(comparison.tables[0]))
    (table,) = json.loads(to_json(comparison))["tables"]
    (row,) = table["rows"]
    assert row["settings"]["2-way 1-shot"]["looks"] == 4
    assert ",looks," in to_csv(comparison).splitlines()[0]


def test_what_is_no_look() -> None:
    """Seeds, a repeated evaluation, more of its episodes and validation are no further look."""
    runs = [fewshot_bench.run("protonet", **OWN, seed=seed) for seed in (0, 1)]
    fewshot_bench.evaluate(str(folder_of(runs[0])))
    fewshot_bench.evaluate(str(folder_of(runs[0])), episodes=8)
    fewshot_bench.evaluate(str(folder_of(runs[0])), part="validation")
    found = compare(load_runs([Path("runs")])[0])
    for table in found.tables:
        for _, _, cell in table.filled:
            if table.protocol["part"] == "validation":
                assert cell.looks is None
            else:
                assert cell.looks is not None
                assert (cell.looks.configurations, cell.looks.seeds) == (1, 2)
    assert not any("Looks at the test" in text for text in texts(found))


def test_initial_weights_count_by_content() -> None:
    """A run that started with ``--init``, its evaluation, the evaluation of that one, and the same
    weights from a moved folder are one configuration; other weights are another.
    """
    first = fewshot_bench.run("protonet", **OWN | {"runs_dir": "first"})
    other = fewshot_bench.run("protonet", **OWN | {"runs_dir": "first"}, seed=1)
    run = fewshot_bench.run("protonet", **OWN, init=f"first/{first['id']}")
    again = fewshot_bench.evaluate(str(folder_of(run)))
    fewshot_bench.evaluate(str(folder_of(again)))
    shutil.copytree(f"first/{first['id']}", "moved")
    fewshot_bench.run("protonet", **OWN, init="moved", seed=2)

    def looks() -> set[int | None]:
        found = compare(load_runs([Path("runs")])[0])
        cells = [cell for table in found.tables for _, _, cell in table.filled]
        return {cell.looks and cell.looks.configurations for cell in cells}

    assert looks() == {1}
    fewshot_bench.run("protonet", **OWN, init=f"first/{other['id']}")
    assert looks() == {2}


def test_another_episode_seed_is_a_look() -> None:
    """Other test episodes of the same weights are a further look: one could choose among them."""
    run = fewshot_bench.run("nearest-centroid", **UNTRAINED)
    for seed in (1, 2):
        fewshot_bench.evaluate(str(folder_of(run)), episode_seed=seed)
    found = compare(load_runs([Path("runs")])[0])
    cells = [cell for table in found.tables for _, _, cell in table.filled]
    assert {cell.looks and cell.looks.configurations for cell in cells} == {3}


def test_other_data_and_tasks_are_no_look() -> None:
    """Runs with another task or another folder do not count here."""
    fewshot_bench.run("nearest-centroid", **UNTRAINED)
    fewshot_bench.run("nearest-centroid", **UNTRAINED | {"way": 3})
    elsewhere = fewshot_bench.run("nearest-centroid", **UNTRAINED | {"runs_dir": "elsewhere"})
    shutil.move(f"elsewhere/{elsewhere['id']}", "alone")
    for path in (Path("runs"), Path("alone")):
        for table in compare(load_runs([path])[0]).tables:
            for _, _, cell in table.filled:
                assert cell.looks is not None
                assert cell.looks.configurations == 1
