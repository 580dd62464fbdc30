"""``fsb compare`` where there is something to run: the real command on small grids."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fewshot_bench.cli.main import main
from tests.patience import PATIENCE

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


def fsb(*arguments: str, at: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fewshot_bench", "compare", *arguments],
        capture_output=True,
        text=True,
        cwd=at,
        env={**os.environ, "COLUMNS": "140", "PYTHONIOENCODING": "utf-8"},
        timeout=PATIENCE,
        check=False,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a file's grid has been run."""
    folder = tmp_path_factory.mktemp("grid")
    (folder / "grid.toml").write_text(FILE, "utf-8")
    first = fsb("grid.toml", "--format", "json", at=folder)
    assert first.returncode == 0, first.stderr
    (folder / "first.json").write_text(first.stdout, "utf-8")
    (folder / "said.txt").write_text(first.stderr, "utf-8")
    return folder


def test_a_files_names_are_the_rows_and_may_be_the_baseline(home: Path) -> None:
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


def test_progress_is_over_the_whole_grid(home: Path) -> None:
    said = (home / "said.txt").read_text("utf-8")
    assert "run 1/6: nearest-centroid, 3-way 1-shot, seed 0" in said
    assert "run 6/6: protonet, 3-way 2-shot, seed 0" in said
    (last,) = (line for line in said.splitlines() if line.startswith("run 6/6"))
    assert re.search(r", about \d+ (s|min) left for all$", last)


def test_what_is_there_is_told_and_not_run_again(home: Path) -> None:
    before = sorted(path.name for path in (home / "runs").iterdir())
    again = fsb("grid.toml", "--format", "json", at=home)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("there already, in 'runs/") == 6
    assert "run 1/" not in again.stderr
    assert sorted(path.name for path in (home / "runs").iterdir()) == before
    assert json.loads(again.stdout) == json.loads((home / "first.json").read_text("utf-8"))


def test_options_of_the_table_run_nothing_again(home: Path) -> None:
    before = sorted(path.name for path in (home / "runs").iterdir())
    (home / "other.toml").write_text("level = 0.9\n" + FILE, "utf-8")
    done = fsb("other.toml", "--interval", "bca", "--target", "0.5", "--format", "json", at=home)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (home / "runs").iterdir()) == before
    (table,) = json.loads(done.stdout)["tables"]
    assert table["level"] == 0.9


def test_several_query_counts_are_two_tables_and_no_mistake(tmp_path: Path) -> None:
    words = f"nearest-centroid --shot 1 {QUICK} --query 3 --format json"
    done = fsb(*words.split(), at=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["tables"]) == 2
    # Read again, they are runs of different protocols.
    assert fsb("runs", at=tmp_path).returncode == 2


def test_methods_are_run_with_several_seeds_on_the_same_episodes(tmp_path: Path) -> None:
    words = f"nearest-centroid protonet --seeds 2 --shot 1 --baseline nearest-centroid {QUICK}"
    done = fsb(*words.split(), "--glyph-seed", "3", "--format", "json", at=tmp_path)
    assert done.returncode == 0, done.stderr
    (table,) = json.loads(done.stdout)["tables"]
    cells = {row["method"]: row["settings"]["3-way 1-shot"] for row in table["rows"]}
    assert cells["protonet"]["seeds"] == [0, 1]
    assert cells["protonet"]["interval_kind"] == "hierarchical"
    digests = {
        json.loads(path.read_text("utf-8"))["episodes_digest"]
        for path in (tmp_path / "runs").glob("*/record.json")
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("protonet protonet", "protonet is named twice"),
        ("protonet-x", "no method or folder named 'protonet-x'"),
        ("no/such/folder", "there is no 'no/such/folder'"),
        ("missing.toml", "'missing.toml' cannot be read"),
        ("grid.toml --way 4", "'grid.toml' says what is run"),
        ("grid.toml protonet", "'grid.toml' says all that is compared"),
        ("runs --seeds 3", "--seeds is about runs to make"),
        ("protonet --seeds 0", "seeds 0: give a number of at least 1"),
        ("protonet --dataset glyphs --glyph-sed 3", "--glyph-sed"),
        ("protonet --interval bootstrap", "no interval named 'bootstrap'"),
        ("protonet --dataset glyphs --way 1", "--way 1: it has to be at least 2"),
        ("runs -o table.txt", "-o wants a format"),
        ("runs --baseline nobody", "no baseline named 'nobody'"),
        ("protonet --baseline nobody", "no baseline named 'nobody'"),
        ("protonet --format tables", "no exporter named 'tables'"),
        ("protonet -o table.txt", "-o wants a format"),
        ("protonet --target 95", "--target 95 is no accuracy"),
        ("runs --target 95", "--target 95 is no accuracy"),
    ],
)
def test_what_cannot_be_is_one_line(
    home: Path,
    words: str,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "argv", ["fsb", "compare", *words.split()])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    said = capsys.readouterr()
    (line,) = said.err.strip().splitlines()
    assert line.startswith("error: ")
    assert told in line
    assert said.out == ""
