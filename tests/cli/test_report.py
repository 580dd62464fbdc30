"""``fsb report``, the real command, on runs that nobody ran."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fewshot_bench.cli.main import main
from tests.figures.drawn_runs import evaluated, trained
from tests.patience import PATIENCE

WITHOUT = (
    "import sys\n"
    "sys.modules['matplotlib'] = None\n"
    "from fewshot_bench.cli.main import main\n"
    "main()\n"
)


def fsb(*arguments: str, at: Path, script: str = "") -> subprocess.CompletedProcess[str]:
    start = ["-c", script] if script else ["-m", "fewshot_bench"]
    return subprocess.run(
        [sys.executable, *start, *arguments],
        capture_output=True,
        text=True,
        cwd=at,
        env={**os.environ, "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"},
        timeout=PATIENCE,
        check=False,
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder whose runs/ holds one run that trained and one that did not."""
    trained(tmp_path / "runs", "alpha")
    evaluated(tmp_path / "runs", "beta", right=[[2, 3], [1, 4], [2, 2], [3, 3]])
    return tmp_path


def test_a_page_is_written_and_named(home: Path) -> None:
    done = fsb("report", "-o", "report", "--baseline", "beta", "--target", "0.7", at=home)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "wrote 'report/index.html'\n"
    page = (home / "report" / "index.html").read_text("utf-8")
    assert "Against beta" in page
    assert "to 70 % s" in page
    assert page.count("<img ") >= 5
    # A second time it is replaced.
    assert fsb("report", "runs", "-o", "report", "--no-pictures", at=home).returncode == 0
    again = (home / "report" / "index.html").read_text("utf-8")
    assert "<img " not in again


def test_the_page_is_a_format_of_compare(home: Path) -> None:
    done = fsb("compare", "runs", "--format", "html", "-o", "page.html", at=home)
    assert (done.returncode, done.stderr) == (0, "")
    assert (home / "page.html").read_text("utf-8").startswith("<!DOCTYPE html>")


def test_without_matplotlib_it_asks_for_it(home: Path) -> None:
    said = fsb("report", "-o", "report", at=home, script=WITHOUT)
    assert said.returncode == 2
    assert "pip install 'fewshot-bench[figures]'" in said.stderr
    assert len(said.stderr.splitlines()) == 1
    done = fsb("report", "-o", "report", "--no-pictures", at=home, script=WITHOUT)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_broken_is_told_and_the_others_are_shown(home: Path) -> None:
    newer = evaluated(home / "runs", "gamma")
    record = json.loads((newer / "record.json").read_text("utf-8"))
    (newer / "record.json").write_text(json.dumps(record | {"schema_version": 99}))
    cut = evaluated(home / "runs", "delta")
    (cut / "record.json").write_text((cut / "record.json").read_text()[:100])
    bare = evaluated(home / "runs", "epsilon")
    (bare / "episodes.csv").unlink()
    done = fsb("report", "runs", "-o", "report", at=home)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("left out: ") for line in lines)
    page = (home / "report" / "index.html").read_text("utf-8")
    for part in ("schema version 99", "is damaged", "episodes.csv", "alpha", "beta"):
        assert part in page


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("report", "Missing option"),
        ("report nowhere -o report", "there is no 'nowhere'"),
        ("report runs -o runs/file/report", "cannot make 'runs/file/report'"),
        ("report runs -o report --baseline nobody", "no baseline named 'nobody'"),
        ("report empty -o report", "no finished run in 'empty'"),
        ("report runs -o report --level 95", "--level 95 is no level"),
    ],
)
def test_what_cannot_be_is_one_line(
    home: Path,
    words: str,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (home / "runs" / "file").write_text("")
    (home / "empty").mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "argv", ["fsb", *words.split()])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert told in line
