"""Rows of a table that were trained differently say so.

The table, the page, the files and every sentence name the differences between the trainings of the
rows. ``fsb compare --equal`` trains all rows with equal values of the named settings, or shows no
table.
"""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

import fewshot_bench
from fewshot_bench.config.resolve import configure
from fewshot_bench.config.schema import MACHINE, OUTPUT, TRAINING, settings_of
from fewshot_bench.errors import ConfigError, UnknownName
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.report.page import html
from fewshot_bench.results.comparison import Comparison, compare, refuse_unequal
from fewshot_bench.results.formats.data import to_csv, to_json
from fewshot_bench.results.formats.latex import latex
from fewshot_bench.results.formats.markdown import markdown
from fewshot_bench.results.formats.terminal import terminal
from fewshot_bench.results.runs import load_runs
from fewshot_bench.results.sentences import best_sentences, sentences
from fewshot_bench.results.training import OF_TRAINING, TRAITS, equal_names, texts
from fewshot_bench.runs.context import RunContext
from fewshot_bench.runs.grid import Entry, Grid, cells_of
from fewshot_bench.runs.prepare import prepare, training_summary
from fewshot_bench.runs.train import make_trainer
from tests.command_line import InProcess
from tests.results.made_up_runs import made_up, scores_of, write_run
from tests.sampling.test_batches import METHOD

# For each trait of a training: what is changed, and what a sentence has to say of it.
PLANTED: dict[str, tuple[dict[str, Any], str]] = {
    "data": ({"dataset": "omniglot"}, "omniglot against glyphs (training data)"),
    "backbone": ({"backbone": "resnet12"}, "resnet12 against conv4"),
    "preset": ({"preset": "paper"}, "paper against quick (preset)"),
    "way": ({"train_way": 5}, "with other training tasks: 5-way against 20-way"),
    "shot": ({"train_shot": 1}, "with other training tasks: 1-shot against 5-shot"),
    "query": ({"train_query": 15}, "with other training tasks: 15 against 5 queries a class"),
    "unlabeled": ({"train_unlabeled": 3}, "3 against 0 unlabeled images a class"),
    "distractors": ({"train_distractors": 2}, "2 against 0 distractors"),
    "labeled": (
        {"labeled_fraction": 0.1, "labeled_images": 2400},
        "2400 against 24,000 labeled images",
    ),
    "task-batch": ({"task_batch": 8}, "with other training: 8 against 2 tasks a step"),
    "steps": ({"steps": 300}, "300 against 800 steps"),
    "validation": ({"validate_every": 0}, "at the end against every 200 steps (validation)"),
    "within-family": ({"within_family": True}, "on against off (classes of one family)"),
    "augmentation": ({"pixels": "signed"}, "pixels signed against pixels unit"),
    "precision": ({"precision": "bf16"}, "bf16 against fp32"),
    "skip-spikes": ({"skip_spikes": 10.0}, "10 against off (skipped spikes)"),
    "pretraining": ({"init": "runs/other"}, "other against none (first weights)"),
    "source": ({"source": "batches"}, "with other training: batches against episodes"),
    "images": ({"images_seen": 60_000}, "60,000 against 320,000 images seen"),
    "parameters": ({"parameters": 8_000_000}, "8,000,000 against 111,936 parameters"),
}


def write_trained(runs: Path, method: str, seed: int, **changes: Any) -> Path:
    """A made-up run of a complete configuration; ``changes`` are about its training alone."""
    config = configure("protonet").to_dict()
    summary: dict[str, Any] = {
        "source": "episodes", "settings": {name: config[name] for name in OF_TRAINING},
        "dataset_digest": "d" * 64, "init_digest": None, "classes": 1200, "images": 24_000,
        "labeled_images": 24_000, "turns": 1, "images_per_task": 200, "images_seen": 320_000,
    }  # fmt: skip
    record: dict[str, Any] = {"parameters": 111_936, "training": {"steps": 800, "seconds": 60.0}}
    for name, value in changes.items():
        of = next((d for d in (summary["settings"], summary, record) if name in d), record)
        of[name] = value
    summary["train_digest"] = f"{summary['settings']['dataset']:0<64}"
    record |= {"config": config, "training_summary": summary if record["parameters"] else None}
    return write_run(runs, method, scores_of(seed, 0.7 if method == "one" else 0.9), **record)


def shown(runs: Path, baseline: str | None = "other") -> Comparison:
    return compare(load_runs([runs])[0], baseline)


def plain(text: str) -> str:
    """Without the line breaks and markup of a format."""
    for mark in (r"\shortstack{", r"\#", r"\%", r"\_", "\\", "{", "}", "$", "|"):
        text = text.replace(mark, " ")
    return " ".join(text.split())


def test_every_setting_of_the_training_has_a_label() -> None:
    """A setting with scope TRAINING that is added without a label fails this test."""
    weights = set(settings_of(TRAINING, without=MACHINE | OUTPUT))
    # Repeats a training; give the same numbers.
    assert weights - set(OF_TRAINING) == {"seed", "engine", "task_chunk"}
    assert set(OF_TRAINING) - weights == {"backbone_options", "dataset_options"}
    assert list(PLANTED) == [trait.name for trait in TRAITS]
    assert {n for changes, _ in PLANTED.values() for n in changes} >= set(OF_TRAINING) - {
        "backbone_options", "dataset_options", "validation_episodes",
        "labeled_classes", "labeled_seed",
    }  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_differences_are_named_in_every_format(name: str, tmp_path: Path) -> None:
    """Two runs that differ in one training setting: every format and every sentence names it."""
    changes, phrase = PLANTED[name]
    write_trained(tmp_path, "one", 1, **changes)
    write_trained(tmp_path, "other", 2)
    comparison = shown(tmp_path)
    (table,) = comparison.tables
    (trait,) = table.training_differs
    assert trait.name == name
    caption = f"Training differs between the rows of a column: {trait.label}."
    (sentence,) = sentences(table, comparison)
    assert " worse than " in sentence
    assert phrase in sentence
    assert f"its training differs from that of one ({trait.label})" in best_sentences(table)[0]
    values = texts(trait, [row.runs for row in table.rows])
    written = {
        "terminal": terminal(comparison, 100, lambda text, style: text),
        "markdown": markdown(comparison),
        "latex": latex(comparison),
        "html": html(comparison).split("<main")[1].split('aria-labelledby="runs"')[0],
    }
    for format, text in written.items():
        assert caption in plain(text), format
        assert phrase in plain(text.replace("&amp;", "&")), format
        for row, value in zip(table.rows, values, strict=True):
            assert row.name in text
            assert value in plain(text), format
    assert max(map(len, written["terminal"].splitlines())) <= 100
    (as_json,) = json.loads(to_json(comparison))["tables"]
    assert phrase in as_json["sentences"][0]
    assert caption in as_json["caption"]
    cells = {row["name"]: row["settings"]["5-way 5-shot"] for row in as_json["rows"]}
    assert cells["one"]["training"][name] != cells["other"]["training"][name]
    assert cells["one"]["training_differs"] == cells["one"]["paired"]["training_differs"] == [name]
    lines = {line["row"]: line for line in csv.DictReader(io.StringIO(to_csv(comparison)))}
    column = f"training_{name.replace('-', '_')}"
    assert lines["one"][column] != lines["other"][column]
    assert lines["one"]["training_differs"] == lines["one"]["paired_training_differs"] == name


def test_equal_trainings_are_not_mentioned(tmp_path: Path) -> None:
    """Rows with equal training have no table of trainings and no words about it."""
    write_trained(tmp_path, "one", 1)
    write_trained(tmp_path, "other", 2)
    comparison = shown(tmp_path)
    text = plain(terminal(comparison, 100, lambda text, style: text))
    assert "raining differs" not in text
    assert "other training" not in text
    assert all(row["settings"]["5-way 5-shot"]["training_differs"] == []
               for row in json.loads(to_json(comparison))["tables"][0]["rows"])  # fmt: skip
    refuse_unequal(comparison, equal_names("all"))


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ((1, 0.9), (2, 0.5), "is better than"),
        ((2, 0.5), (1, 0.9), "is worse than"),
        ((1, 0.9), (7, 0.9), "no difference found between"),
        ((1, 0.9), (1, 0.9), "score the same on every episode"),
    ],
)
def test_every_kind_of_sentence_names_it(
    one: tuple[int, float], other: tuple[int, float], words: str, tmp_path: Path
) -> None:
    """Better, worse, not significant or equal: every sentence names the difference in training."""
    for method, (seed, mean), way in (("one", one, 5), ("other", other, 20)):
        folder = write_trained(tmp_path, method, 0, train_way=way)
        record = json.loads((folder / "record.json").read_text("utf-8"))
        fresh = made_up(method, scores_of(seed, mean))
        write_run(tmp_path / "all", method, scores_of(seed, mean),
                  **{n: record[n] for n in ("config", "training", "training_summary")},
                  test=fresh["test"])  # fmt: skip
    comparison = shown(tmp_path / "all")
    (sentence,) = sentences(comparison.tables[0], comparison)
    assert words in sentence
    assert "with other training tasks: 5-way against 20-way" in sentence


def test_a_row_without_training_is_named(tmp_path: Path) -> None:
    """A method without training beside a trained one: table and sentence say so."""
    write_trained(tmp_path, "one", 1, training=None, parameters=0)
    write_trained(tmp_path, "other", 2)
    comparison = shown(tmp_path)
    (table,) = comparison.tables
    assert "with other training: none against 800 steps" in sentences(table, comparison)[0]
    assert "Nothing is trained in one." in to_json(comparison)
    assert "(only other is trained)" in best_sentences(table)[0]
    refuse_unequal(comparison, equal_names("all"))  # there is nothing to make equal


def test_columns_with_presets_of_their_own_are_listed_separately(tmp_path: Path) -> None:
    """A preset with another number of steps per column differs between rows, not columns."""
    for shot, steps in ((1, 300), (5, 800)):
        task = {"way": 5, "shot": shot, "query": 15, "unlabeled": 0, "distractors": 0}
        write_trained(tmp_path, "one", shot, task=task, train_shot=shot, steps=steps)
        write_trained(tmp_path, "other", shot + 1, task=task, train_shot=shot, steps=steps)
    comparison = shown(tmp_path)
    assert comparison.tables[0].training_differs == []
    write_trained(tmp_path, "third", 9, train_shot=5, steps=900)
    comparison = shown(tmp_path)
    assert [trait.name for trait in comparison.tables[0].training_differs] == ["steps"]
    (as_json,) = json.loads(to_json(comparison))["tables"]
    cells = [one for row in as_json["rows"] for one in row["settings"].items() if one[1]]
    differs = {setting: cell["training_differs"] for setting, cell in cells}
    assert differs == {"5-way 1-shot": [], "5-way 5-shot": ["steps"]}


def test_a_table_of_many_differences_keeps_the_width_and_loses_none(tmp_path: Path) -> None:
    """With many differences, every value is in the table on 100 columns and in LaTeX."""
    for shot, steps in ((1, 2000), (5, 1500)):
        task = {"way": 5, "shot": shot, "query": 15, "unlabeled": 0, "distractors": 0}
        write_trained(tmp_path, "other", shot, task=task, train_shot=shot)
        write_trained(
            tmp_path, "one", shot + 1, task=task, train_shot=shot, train_way=5, train_query=15,
            steps=steps, task_batch=4, backbone="conv4-strided", init="runs/" + "long-" * 8 + "id",
            precision="bf16", preset="paper", parameters=999_999,
            validation={"best_step": 1400, "accuracy": 0.9},
        )  # fmt: skip
    comparison = shown(tmp_path)
    text = terminal(comparison, 100, lambda text, style: text)
    assert max(map(len, text.splitlines())) <= 100
    steps = "2000 (1400 chosen); 1500 (1400 chosen)"
    others = (
        "conv4-strided",
        "999,999",
        "bf16",
        "paper",
        "long-" * 8 + "id",
        "Behind a semicolon:",
    )
    for one in (plain(text), plain(latex(comparison))):
        for value in (steps, *others):
            assert value in one
    widths = [
        sum(len(cell.strip()) + 2 for cell in line.split("&"))
        for line in latex(comparison).split("Training of the rows")[1].split(r"\end{table}")[0]
        .splitlines() if "&" in line
    ]  # fmt: skip
    assert max(widths) < 90


def test_the_same_initial_weights_in_two_folders_are_one(tmp_path: Path) -> None:
    """Moved weights are the same pretraining; other weights under one path are not."""
    write_trained(tmp_path / "a", "one", 1, init="here", init_digest="1" * 64)
    write_trained(tmp_path / "a", "other", 2, init="there", init_digest="1" * 64)
    assert shown(tmp_path / "a").tables[0].training_differs == []
    write_trained(tmp_path / "b", "one", 1, init="here", init_digest="1" * 64)
    write_trained(tmp_path / "b", "other", 2, init="here", init_digest="2" * 64)
    assert [t.name for t in shown(tmp_path / "b").tables[0].training_differs] == ["pretraining"]
    write_trained(tmp_path / "c", "one", 1, init="here", init_digest="1" * 64)
    write_trained(tmp_path / "c", "one", 2, init="here", init_digest="2" * 64)
    comparison = shown(tmp_path / "c", None)
    assert comparison.problems == []  # neither replaces the other
    assert [row.name for row in comparison.tables[0].rows].count("one (init 111111)") == 1
    assert len(comparison.tables[0].rows) == 2


def test_another_file_under_one_path_is_another_backbone(tmp_path: Path) -> None:
    """A file that a backbone's option names is compared by content, if the record has it."""
    for method, seed, digest in (("one", 1, "1" * 64), ("other", 2, "2" * 64)):
        file = {"option": "backbone_weights", "path": "w.pt", "absolute": "/w.pt", "bytes": 1}
        inputs = [file | {"sha256": digest}]
        write_trained(tmp_path, method, seed, backbone_options={"backbone_weights": "w.pt"},
                      inputs=inputs)  # fmt: skip
    (table,) = shown(tmp_path).tables
    assert [trait.name for trait in table.training_differs] == ["backbone"]


TINY: dict[str, Any] = {
    "dataset": "glyphs", "train_classes": 10, "validation_classes": 0, "test_classes": 8,
    "way": 3, "shot": 1, "query": 2, "episodes": 4, "steps": 2, "task_batch": 1, "train_way": 3,
    "train_query": 2, "backbone_channels": 4,
}  # fmt: skip


def test_weights_of_other_data_stay_a_row_of_their_own(tmp_path: Path) -> None:
    """Weights evaluated on data they were not trained on are a separate row."""
    here = TINY | {"runs_dir": str(tmp_path)}
    fewshot_bench.run("protonet", **here)
    elsewhere = fewshot_bench.run("protonet", **here | {"glyph_seed": 5, "test_classes": 9})
    fewshot_bench.evaluate(str(tmp_path / elsewhere["id"]), glyph_seed=0, test_classes=8)
    runs, _ = load_runs([tmp_path])
    digest = next(r for r in runs if r.record["config"]["dataset_options"]["glyph_seed"] == 0)
    runs = [r for r in runs if r.record["dataset_digest"] == digest.record["dataset_digest"]]
    assert len(runs) == 2
    comparison = compare(runs)
    assert comparison.problems == []
    (table,) = comparison.tables
    assert len(table.rows) == 2
    assert "data" in [trait.name for trait in table.training_differs]


METHODS = {
    "protonet": {},
    "metagan": {"base": "protonet", "update": "alternating", "train_unlabeled": 1},
    "batches": {},
    "soft-kmeans": {"train_unlabeled": 2, "train_distractors": 1, "labeled_fraction": 0.5},
}


@pytest.mark.parametrize("method", METHODS)
def test_images_seen_are_those_that_training_shows(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The count in the record equals the number of images that the training loop received."""
    settings = TINY | {"runs_dir": str(tmp_path)} | METHODS[method]
    if method == "batches":
        (tmp_path / "pretrained.py").write_text(METHOD, "utf-8")
        method = f"{tmp_path}/pretrained.py:Pretrained"
        del settings["backbone_channels"]
    parts = prepare(RunContext(configure(method, **settings)))
    summary = training_summary(parts)
    assert summary is not None
    given, batch = [0], parts.train.batch

    def counted(ids: Any) -> Any:
        episode = batch(ids)
        support = episode.support
        given[0] += sum(
            part.shape[:-3].numel()
            for part in (support.images, support.unlabeled, episode.query)
            if part is not None
        )
        return episode

    monkeypatch.setattr(parts.train, "batch", counted)
    with parts.executor.running():
        make_trainer(parts).run()
    assert summary["images_seen"] == given[0] > 0


def grid(*entries: Entry, equal: str, **settings: Any) -> Grid:
    base = {n: v for n, v in TINY.items() if n not in ("train_way", "train_query", "steps",
            "task_batch", "backbone_channels")}  # fmt: skip
    return Grid(entries, base | settings, equal=equal_names(equal))


def values(made: Grid, name: str) -> dict[str, Any]:
    return {cell.entry: getattr(cell.config, name) for cell in cells_of(made, Registry.discover())}


PROTONET, MAML = Entry("protonet", "protonet"), Entry("maml", "maml")
RELATION = Entry("relationnet", "relationnet")
NOTHING = Entry("nearest-centroid", "nearest-centroid")
WIDE = Entry("wide", "relationnet", {"train_way": 7, "train_query": 3})
LONGER = Entry("longer", "protonet", {"steps": 3})
SMALL: dict[str, Any] = {"train_way": 3, "train_query": 2, "steps": 2, "task_batch": 1}


def test_equal_takes_the_evaluations_task_or_what_was_typed() -> None:
    """--equal way: the evaluation's way unless one was typed; a row without training is exempt."""
    made = grid(PROTONET, RELATION, NOTHING, equal="way,query")
    assert values(made, "train_way") == {"protonet": 3, "relationnet": 3, "nearest-centroid": 3}
    assert values(made, "train_query")["protonet"] == 5  # they agree: nothing to settle
    typed = grid(PROTONET, RELATION, NOTHING, equal="way,query", train_way=5)
    assert values(typed, "train_way") == {"protonet": 5, "relationnet": 5, "nearest-centroid": 5}
    row = grid(PROTONET, WIDE, NOTHING, equal="way,query")
    assert values(row, "train_way") == {"protonet": 7, "wide": 7, "nearest-centroid": 3}


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (grid(PROTONET, MAML, equal="steps"), "--equal steps: rows differ in steps: protonet 800"),
        (grid(PROTONET, WIDE, equal="way", train_way=5), r"wide 7 \(typed\); give train-way once"),
        (grid(PROTONET, MAML, equal="parameters", **SMALL), "--equal parameters: .*111,936"),
        (
            grid(PROTONET, LONGER, equal="images", **SMALL),
            "--equal images: .*images seen: .*nothing was run",
        ),
        (grid(PROTONET, MAML, equal="backbone"), r"protonet conv4 \(preset\), maml conv4-strided"),
    ],
    ids=["steps", "two were typed", "parameters", "images", "backbone"],
)
def test_equal_refuses_undecided_values(made: Grid, words: str) -> None:
    """If no typed value determines which one to use, nothing is run and one line says so."""
    with pytest.raises(ConfigError, match=words):
        cells_of(made, Registry.discover())


def test_equal_refuses_existing_runs_that_differ(tmp_path: Path, fsb: InProcess) -> None:
    """fsb compare --equal way on runs of other training way: an error that names both values."""
    write_trained(tmp_path, "one", 1, train_way=5)
    write_trained(tmp_path, "other", 2)
    for words in (["way"], ["tasks,way"], ["steps", "--equal", "way"], ["all"]):
        answer = fsb("compare", tmp_path, "--equal", *words)
        assert answer.code == 2
        assert re.search(r"--equal way: .* in way: other 20, one 5", answer.err)
        assert answer.err.count("\n") == 1
    fsb("compare", tmp_path, "--equal", "steps,tasks").succeeded()
    with pytest.raises(UnknownName, match="did you mean 'way'"):
        equal_names("wya")
    for nothing in ("", ","):
        with pytest.raises(ConfigError, match="expected names"):
            equal_names(nothing)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("['steps', 'way']", "rows differ in steps: protonet 800"),
        ("'stepps'", "did you mean 'steps'"),
        ("['way', 3]", "expected names"),
    ],
)
def test_equal_of_a_file_is_obeyed_before_anything_runs(
    key: str, words: str, tmp_path: Path, fsb: InProcess
) -> None:
    """equal = [...] in a grid's file: what cannot be made equal is refused, and nothing is run."""
    text = f"equal = {key}\nway = 3\n[methods.protonet]\n[methods.maml]\n"
    (tmp_path / "grid.toml").write_text(text, "utf-8")
    answer = fsb("compare", "grid.toml", at=tmp_path)
    assert answer.code == 2
    assert words in answer.err
    assert not (tmp_path / "runs").exists()


def test_the_page_on_comparing_names_every_trait() -> None:
    """docs/compare.md has a line for each name that --equal takes."""
    page = (Path(__file__).parents[2] / "docs/compare.md").read_text("utf-8")
    for trait in TRAITS:
        assert f"\n| `{trait.name}` |" in page, trait.name
