"""``fsb compare`` where there is something to run: the real command on small grids."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.command_line import InProcess

QUICK = "--dataset glyphs --way 3 --query 2 --episodes 6 --steps 2 --validation-episodes 2"
FILE = """
dataset = "glyphs"
way = 3
shot = [1, 2]
query = 2
episodes = 6
validation-episodes = 2
baseline = "slow"

[methods.nearest-centroid]
[methods.slow]
method = "protonet"
steps = 2
lr = 0.0001
[methods.protonet]
steps = 2
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, fsb: InProcess) -> Path:
    """A folder in which a file's grid has been run."""
    folder = tmp_path_factory.mktemp("grid")
    (folder / "grid.toml").write_text(FILE, "utf-8")
    first = fsb("compare", "grid.toml", "--format", "json", at=folder).succeeded()
    (folder / "first.json").write_text(first.out, "utf-8")
    (folder / "stderr.txt").write_text(first.err, "utf-8")
    return folder


def test_a_files_names_are_the_rows_and_may_be_the_baseline(home: Path, fsb: InProcess) -> None:
    (table,) = json.loads((home / "first.json").read_text("utf-8"))["tables"]
    rows = {row["name"]: row for row in table["rows"]}
    assert {name: row["method"] for name, row in rows.items()} == {
        "nearest-centroid": "nearest-centroid",
        "slow": "protonet",
        "protonet": "protonet",
    }
    assert [one["name"] for one in table["settings"]] == ["3-way 1-shot", "3-way 2-shot"]
    assert set(table["baselines"].values()) == {"slow"}
    for name, row in rows.items():
        for cell in row["settings"].values():
            assert (cell["paired"] is None) == (name == "slow")


def test_progress_is_over_the_whole_grid(home: Path, fsb: InProcess) -> None:
    lines = (home / "stderr.txt").read_text("utf-8")
    assert "run 1/6: nearest-centroid, 3-way 1-shot, seed 0" in lines
    assert "run 6/6: protonet, 3-way 2-shot, seed 0" in lines
    (last,) = (line for line in lines.splitlines() if line.startswith("run 6/6"))
    assert re.search(r", about \d+ (s|min) left for all$", last)


def test_finished_runs_are_reused(home: Path, fsb: InProcess) -> None:
    before = sorted(path.name for path in (home / "runs").iterdir())
    again = fsb("compare", "grid.toml", "--format", "json", at=home)
    assert again.code == 0, again.err
    assert again.err.count("reusing finished run 'runs/") == 6
    assert "run 1/" not in again.err
    assert sorted(path.name for path in (home / "runs").iterdir()) == before
    assert json.loads(again.out) == json.loads((home / "first.json").read_text("utf-8"))


def test_options_of_the_table_run_nothing_again(home: Path, fsb: InProcess) -> None:
    before = sorted(path.name for path in (home / "runs").iterdir())
    (home / "other.toml").write_text("level = 0.9\n" + FILE, "utf-8")
    done = fsb(
        "compare", "other.toml", "--interval", "bca", "--target", "0.5", "--format", "json", at=home
    )
    assert done.code == 0, done.err
    assert sorted(path.name for path in (home / "runs").iterdir()) == before
    (table,) = json.loads(done.out)["tables"]
    assert table["level"] == 0.9


def test_several_query_counts_are_two_tables_and_no_mistake(tmp_path: Path, fsb: InProcess) -> None:
    words = f"nearest-centroid --shot 1 {QUICK} --query 3 --format json"
    done = fsb("compare", *words.split(), at=tmp_path)
    assert done.code == 0, done.err
    assert len(json.loads(done.out)["tables"]) == 2
    # Read again, they are runs of different protocols.
    assert fsb("compare", "runs", at=tmp_path).code == 2


def test_methods_are_run_with_several_seeds_on_the_same_episodes(
    tmp_path: Path, fsb: InProcess
) -> None:
    words = f"nearest-centroid protonet --seeds 2 --shot 1 --baseline nearest-centroid {QUICK}"
    done = fsb("compare", *words.split(), "--glyph-seed", "3", "--format", "json", at=tmp_path)
    assert done.code == 0, done.err
    (table,) = json.loads(done.out)["tables"]
    cells = {row["method"]: row["settings"]["3-way 1-shot"] for row in table["rows"]}
    assert cells["protonet"]["seeds"] == [0, 1]
    assert cells["protonet"]["interval_kind"] == "hierarchical"
    digests = {
        json.loads(path.read_text("utf-8"))["episodes_digest"]
        for path in (tmp_path / "runs").glob("*/record.json")
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("protonet protonet", "protonet is named twice"),
        ("protonet-x", "no method or folder named 'protonet-x'"),
        ("no/such/folder", "there is no 'no/such/folder'"),
        ("missing.toml", "'missing.toml' cannot be read"),
        ("grid.toml --way 4", "'grid.toml' holds the settings of its runs"),
        ("grid.toml protonet", "'grid.toml' defines the whole comparison"),
        ("runs --seeds 3", "--seeds is a setting of runs to make"),
        ("runs --glyph-seed 3", "no option '--glyph-seed' here"),
        ("runs --with tensorboard", "--with is a setting of runs to make"),
        ("protonet --seeds 0", "seeds: expected an integer >= 1 or a list of seeds, got 0"),
        ("protonet --dataset glyphs --glyph-sed 3", "did you mean '--glyph-seed'?"),
        ("protonet --wrong 3", "fsb compare: no option '--wrong'"),
        ("protonet --split vinyals", "no option '--split' here; it belongs to dataset omniglot"),
        ("protonet --interval bootstrap", "no interval named 'bootstrap'"),
        ("protonet --dataset glyphs --way 1", "--way: expected an integer >= 2, got '1'"),
        ("protonet --way 5 --way x", "--way: expected an integer >= 2, got 'x'"),
        ("protonet --alphabet-size x", "--alphabet-size: expected an integer"),
        ("runs -o table.txt", "-o: expected a format for files"),
        ("runs --baseline nobody", "no baseline named 'nobody'"),
        ("protonet --baseline nobody", "no baseline named 'nobody'"),
        ("protonet --format tables", "no exporter named 'tables'"),
        ("protonet -o table.txt", "-o: expected a format for files"),
        ("protonet --target 95", "--target: expected an accuracy such as 0.95, got 95"),
        ("runs --target 95", "--target: expected an accuracy such as 0.95, got 95"),
    ],
)
def test_bad_input_is_one_line(home: Path, words: str, message: str, fsb: InProcess) -> None:
    answer = fsb("compare", *words.split(), at=home)
    assert (answer.code, answer.out) == (2, "")
    (line,) = answer.err.splitlines()
    assert line.startswith("error: ")
    assert message in line
