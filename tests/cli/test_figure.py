"""``fsb figure``, on runs that nobody ran."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewshot_bench.figures import KINDS
from fewshot_bench.utils.inputs import WEIGHTS
from tests.command_line import InProcess, Process, reporting, without
from tests.figures.drawn_runs import evaluated, trained

WITHOUT = without("matplotlib")
HEAVY = reporting("torch", "numpy", "scipy", "matplotlib", "rich")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder whose runs/ holds one run that trained and one that did not."""
    trained(tmp_path / "runs", "alpha")
    evaluated(tmp_path / "runs", "beta")
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_the_help_lists_every_kind_and_imports_nothing_heavy(
    tmp_path: Path, fsb_process: Process
) -> None:
    said = fsb_process("figure", "--help", at=tmp_path, before=HEAVY)
    assert said.code == 0
    assert said.out.endswith("imported: []\n")
    for name, kind in KINDS.items():
        assert f"{name:<10} {kind.sentence}" in said.out


def test_a_picture_and_what_it_lacks(home: Path, fsb: InProcess) -> None:
    said = fsb("figure", "learning", "runs", "-o", "out.svg", at=home)
    assert (said.code, said.out) == (0, "")
    (line,) = said.err.splitlines()
    assert line.startswith("left out: 'runs/beta-")
    assert line.endswith("(it trained nothing)")
    assert (home / "out.svg").read_text("utf-8").startswith("<?xml")


def test_drawing_imports_no_torch(home: Path, fsb_process: Process) -> None:
    said = fsb_process(
        "figure", "forest", "--baseline", "alpha", "-o", "out.pdf", at=home, before=HEAVY
    )
    assert said.code == 0, said.err
    assert "'matplotlib'" in said.out
    assert "'torch'" not in said.out


def test_a_broken_run_that_was_named_is_an_error_after_the_picture(
    home: Path, fsb: InProcess
) -> None:
    (next((home / "runs").glob("beta-*")) / "record.json").write_text("{")
    said = fsb("figure", "settings", "runs", "-o", "out.png", at=home)
    assert said.code == 2
    assert "damaged" in said.err
    assert (home / "out.png").is_file()


def test_a_run_without_its_weights_is_refused(home: Path, fsb: InProcess) -> None:
    """Planted: a folder from which somebody cleared the weights, and one with others."""
    (beta,) = (home / "runs").glob("beta-*")
    (beta / WEIGHTS).unlink()
    said = fsb("figure", "settings", "runs", "-o", "out.png", at=home)
    assert said.code == 2
    assert f"left out: 'runs/{beta.name}' has no {WEIGHTS}" in said.err
    alone = fsb("figure", "settings", f"runs/{beta.name}", "-o", "alone.png", at=home)
    assert alone.code == 2
    (line,) = alone.err.splitlines()
    assert line.startswith(f"error: 'runs/{beta.name}' has no {WEIGHTS}")
    assert not (home / "alone.png").exists()


WRONG = {
    "kind": (["lerning", "runs", "-o", "x.png"], ("'lerning'", "did you mean 'learning'")),
    "ending": (["learning", "runs", "-o", "x.jpg"], (".png, .pdf or .svg",)),
    "no file": (["learning", "runs"], ("--output",)),
    "no folder": (["learning", "nowhere", "-o", "x.png"], ("'nowhere'", "fsb run METHOD")),
    "no runs": (["learning", "empty", "-o", "x.png"], ("no finished run in 'empty'",)),
    "nothing to draw": (["episode", "runs", "-o", "x.png"], ("'episode'", "--pictures")),
    "no baseline": (["forest", "runs", "-o", "x.png"], ("--baseline METHOD",)),
    "idle option": (["steps", "-o", "x.png", "--episode", "3"], ("--episode", "'steps'")),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_one_line(case: str, home: Path, fsb: InProcess) -> None:
    typed, words = WRONG[case]
    said = fsb("figure", *typed, at=home)
    assert said.code == 2
    assert said.out == ""
    *left_out, line = said.err.splitlines()
    assert all(told.startswith("left out: ") for told in left_out)
    assert line.startswith("error: ")
    assert all(word in line for word in words), line
    assert not list(home.glob("x.*"))


def test_without_matplotlib_it_says_what_to_install(home: Path, fsb_process: Process) -> None:
    said = fsb_process("figure", "learning", "runs", "-o", "x.png", at=home, before=WITHOUT)
    assert (said.code, said.out) == (2, "")
    (line,) = said.err.splitlines()
    assert "pip install 'fewshot-bench[figures]'" in line
    assert not (home / "x.png").exists()
