"""``fsb report``, on runs that nobody ran."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command_line import InProcess, Process, without
from tests.figures.drawn_runs import evaluated, trained

WITHOUT = without("matplotlib")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder whose runs/ holds one run that trained and one that did not."""
    trained(tmp_path / "runs", "alpha")
    evaluated(tmp_path / "runs", "beta", right=[[2, 3], [1, 4], [2, 2], [3, 3]])
    return tmp_path


def test_a_page_is_written_and_named(home: Path, fsb: InProcess) -> None:
    done = fsb("report", "-o", "report", "--baseline", "beta", "--target", "0.7", at=home)
    assert (done.code, done.err) == (0, "")
    assert done.out == "wrote 'report/index.html'\n"
    page = (home / "report" / "index.html").read_text("utf-8")
    assert "Against beta" in page
    assert "to 70 % s" in page
    assert page.count("<img ") >= 5
    # A second time it is replaced.
    assert fsb("report", "runs", "-o", "report", "--no-pictures", at=home).code == 0
    again = (home / "report" / "index.html").read_text("utf-8")
    assert "<img " not in again


def test_the_page_is_a_format_of_compare(home: Path, fsb: InProcess) -> None:
    done = fsb("compare", "runs", "--format", "html", "-o", "page.html", at=home)
    assert (done.code, done.err) == (0, "")
    assert (home / "page.html").read_text("utf-8").startswith("<!DOCTYPE html>")


def test_without_matplotlib_it_asks_for_it(home: Path, fsb_process: Process) -> None:
    said = fsb_process("report", "-o", "report", at=home, before=WITHOUT)
    assert said.code == 2
    assert "pip install 'fewshot-bench[figures]'" in said.err
    assert len(said.err.splitlines()) == 1
    done = fsb_process("report", "-o", "report", "--no-pictures", at=home, before=WITHOUT)
    assert (done.code, done.err) == (0, "")


def test_what_is_broken_is_told_and_the_others_are_shown(home: Path, fsb: InProcess) -> None:
    newer = evaluated(home / "runs", "gamma")
    record = json.loads((newer / "record.json").read_text("utf-8"))
    (newer / "record.json").write_text(json.dumps(record | {"schema_version": 99}))
    cut = evaluated(home / "runs", "delta")
    (cut / "record.json").write_text((cut / "record.json").read_text()[:100])
    bare = evaluated(home / "runs", "epsilon")
    (bare / "episodes.csv").unlink()
    done = fsb("report", "runs", "-o", "report", at=home)
    assert done.code == 2
    lines = done.err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("left out: ") for line in lines)
    page = (home / "report" / "index.html").read_text("utf-8")
    for part in ("schema version 99", "is damaged", "episodes.csv", "alpha", "beta"):
        assert part in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("report", "Missing option"),
        ("report nowhere -o report", "there is no 'nowhere'"),
        ("report runs -o runs/file/report", "cannot make 'runs/file/report'"),
        ("report runs -o report --baseline nobody", "no baseline named 'nobody'"),
        ("report empty -o report", "no finished run in 'empty'"),
        ("report runs -o report --level 95", "--level"),
    ],
)
def test_bad_input_is_one_line(home: Path, words: str, message: str, fsb: InProcess) -> None:
    (home / "runs" / "file").write_text("")
    (home / "empty").mkdir()
    answer = fsb(*words.split(), at=home)
    assert answer.code == 2
    (line,) = answer.err.splitlines()
    assert message in line
