"""``fsb figure``, the real command, on runs that nobody ran."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fewshot_bench.figures import KINDS
from fewshot_bench.utils.inputs import WEIGHTS
from tests.figures.drawn_runs import evaluated, trained
from tests.patience import PATIENCE

# Imports of these names fail, as where the extra is not installed.
WITHOUT = (
    "import sys\n"
    "for name in {names}: sys.modules[name] = None\n"
    "from fewshot_bench.cli.main import main\n"
    "main()\n"
)
HEAVY = (
    "import sys, atexit\n"
    "heavy = {'torch', 'numpy', 'scipy', 'matplotlib', 'rich'}\n"
    "atexit.register(lambda: print('heavy:', sorted(heavy & set(sys.modules))))\n"
    "from fewshot_bench.cli.main import main\n"
    "main()\n"
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder whose runs/ holds one run that trained and one that did not."""
    trained(tmp_path / "runs", "alpha")
    evaluated(tmp_path / "runs", "beta")
    (tmp_path / "empty").mkdir()
    return tmp_path


def fsb(*arguments: str, at: Path, script: str = "") -> subprocess.CompletedProcess[str]:
    start = ["-c", script] if script else ["-m", "fewshot_bench"]
    return subprocess.run(
        [sys.executable, *start, "figure", *arguments],
        capture_output=True,
        text=True,
        cwd=at,
        env={**os.environ, "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"},
        timeout=PATIENCE,
        check=False,
    )


def test_the_help_lists_every_kind_and_imports_nothing_heavy(tmp_path: Path) -> None:
    said = fsb("--help", at=tmp_path, script=HEAVY)
    assert said.returncode == 0
    assert said.stdout.endswith("heavy: []\n")
    for name, kind in KINDS.items():
        assert f"{name:<10} {kind.sentence}" in said.stdout


def test_a_picture_and_what_it_lacks(home: Path) -> None:
    said = fsb("learning", "runs", "-o", "out.svg", at=home)
    assert (said.returncode, said.stdout) == (0, "")
    (line,) = said.stderr.splitlines()
    assert line.startswith("left out: 'runs/beta-")
    assert line.endswith("(it trained nothing)")
    assert (home / "out.svg").read_text("utf-8").startswith("<?xml")


def test_drawing_imports_no_torch(home: Path) -> None:
    said = fsb("forest", "--baseline", "alpha", "-o", "out.pdf", at=home, script=HEAVY)
    assert said.returncode == 0, said.stderr
    assert "'matplotlib'" in said.stdout
    assert "'torch'" not in said.stdout


def test_a_broken_run_that_was_named_is_an_error_after_the_picture(home: Path) -> None:
    (next((home / "runs").glob("beta-*")) / "record.json").write_text("{")
    said = fsb("settings", "runs", "-o", "out.png", at=home)
    assert said.returncode == 2
    assert "damaged" in said.stderr
    assert (home / "out.png").is_file()


def test_a_run_without_its_weights_is_refused(home: Path) -> None:
    """Planted: a folder from which somebody cleared the weights, and one with others."""
    (beta,) = (home / "runs").glob("beta-*")
    (beta / WEIGHTS).unlink()
    said = fsb("settings", "runs", "-o", "out.png", at=home)
    assert said.returncode == 2
    assert f"left out: 'runs/{beta.name}' has no {WEIGHTS}" in said.stderr
    alone = fsb("settings", f"runs/{beta.name}", "-o", "alone.png", at=home)
    assert alone.returncode == 2
    (line,) = alone.stderr.splitlines()
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
def test_bad_input_is_one_line(case: str, home: Path) -> None:
    typed, words = WRONG[case]
    said = fsb(*typed, at=home)
    assert said.returncode == 2
    assert said.stdout == ""
    *left_out, line = said.stderr.splitlines()
    assert all(told.startswith("left out: ") for told in left_out)
    assert line.startswith("error: ")
    assert all(word in line for word in words), line
    assert not list(home.glob("x.*"))


def test_without_matplotlib_it_says_what_to_install(home: Path) -> None:
    script = WITHOUT.format(names="['matplotlib']")
    said = fsb("learning", "runs", "-o", "x.png", at=home, script=script)
    assert (said.returncode, said.stdout) == (2, "")
    (line,) = said.stderr.splitlines()
    assert "pip install 'fewshot-bench[figures]'" in line
    assert not (home / "x.png").exists()
