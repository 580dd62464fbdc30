"""``fsb compare``, the real command, on runs that nobody ran."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_up_runs import scores_of, write_run

from fewshot_bench.results.statistics import student_interval

TIMING = {
    "step_ms": {"median": 1360.502, "p95": 1434.43},
    "tasks_per_s": 0.735,
    "adapt_ms": 35.6456,
    "predict_ms": 114.036,
    "peak_memory_bytes": 1_405_616_128,
}
TRAINING = {"steps": 400, "seconds": 412.4, "warmup_seconds": 4.1, "engine": "threads"}
ONE_SHOT = {"way": 5, "shot": 1, "query": 15, "unlabelled": 0, "distractors": 0}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder whose runs/ holds two protocols, the first with a clear winner."""
    runs = tmp_path / "runs"
    timed = {"timing": TIMING, "training": TRAINING, "parameters": 111_936}
    write_run(runs, "alpha", scores_of(1, 0.95), **timed)
    write_run(runs, "beta", scores_of(2, 0.8), test={"transductive": True}, **timed)
    write_run(runs, "gamma", scores_of(3, 0.6))
    write_run(runs, "beta", scores_of(4, 0.7), task=ONE_SHOT, **timed)
    return tmp_path


def fsb(*arguments: str, at: Path, columns: int = 80) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fewshot_bench", "compare", *arguments],
        capture_output=True,
        text=True,
        cwd=at,
        env={**os.environ, "COLUMNS": str(columns), "PYTHONIOENCODING": "utf-8"},
        timeout=60,
        check=False,
    )


def shown(home: Path, *arguments: str, columns: int = 80) -> str:
    said = fsb(*arguments, at=home, columns=columns)
    assert said.returncode == 0, said.stderr
    assert said.stderr == ""
    return said.stdout


def test_the_table_in_eighty_columns(home: Path) -> None:
    lines = shown(home).splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert lines[0].startswith("marks (official), 5-way 5-shot, 15 queries per class, 40 closed")
    assert [line.split()[0] for line in lines[2:5]] == ["alpha", "beta", "gamma"]
    beta = student_interval(scores_of(2, 0.8))
    assert beta.half_width is not None
    assert f"{100 * beta.mean:.2f} ± {100 * beta.half_width:.2f} †" in lines[3]
    assert "1361" in lines[2]
    assert "…" not in text
    assert "95% Student interval over episodes" in text
    assert "not new images, classes or training seeds" in text
    assert "† transductive" in text
    assert "Bold: better than every other run" in text
    assert "Not comparable with the first table: shot 1 instead of 5." in text


def test_columns_give_way_in_order_and_are_named(home: Path) -> None:
    """The accuracy and the difference stay, down to forty columns."""
    wide = shown(home, "--baseline=gamma", columns=160)
    assert "No room for" not in wide
    assert all(head in wide for head in ("k weights", "peak MB", "train s", "classify ms"))
    gap = 100 * float((scores_of(1, 0.95) - scores_of(3, 0.6)).mean())
    before: set[str] = set()
    for columns in (110, 80, 60):
        text = " ".join(shown(home, "--baseline=gamma", columns=columns).split())
        dropped = set(text.split("No room for: ")[1].split(";")[0].split(", "))
        assert before < dropped
        before = dropped
        assert f"{gap:+.2f} ± " in text
        assert "(p < 0.001)" in text
        assert "--format csv" in text
    write_run(home / "runs", "a-method-with-a-name-far-too-long", scores_of(9))
    narrow = shown(home, columns=40).splitlines()
    assert max(map(len, narrow)) <= 40
    assert any("alpha" in line and "±" in line for line in narrow)
    assert not any("…" in line for line in narrow)
    first_column = "".join(line.split("  ")[0] for line in narrow)
    assert "a-method-with-a-name-far-too-long" in first_column


def test_the_baseline_is_named(home: Path) -> None:
    text = " ".join(shown(home, "--baseline", "gamma").split())
    assert "Differences are from gamma on the same episodes." in text


@pytest.mark.parametrize("format", ["markdown", "latex", "csv", "json"])
def test_exports_go_to_a_file_or_to_standard_output(format: str, home: Path) -> None:
    printed = shown(home, "--baseline=gamma", "--format", format)
    assert shown(home, "--baseline=gamma", "--format", format, "-o", "table") == ""
    assert (home / "table").read_text("utf-8") == printed
    if format == "csv":
        rows = list(csv.DictReader(printed.splitlines()))
        assert len(rows) == 4
        assert float(rows[0]["peak_memory_bytes"]) == 1_405_616_128
        assert float(rows[0]["training_seconds"]) == 412.4
        assert rows[2]["step_ms"] == ""
    if format == "json":
        first, second = json.loads(printed)["groups"]
        assert first["winner"] == first["rows"][0]["run"]
        assert first["baseline"] == first["rows"][2]["run"]
        assert 0 < first["rows"][0]["paired"]["p_wilcoxon"] < 1e-3
        assert (second["winner"], second["baseline"]) == (None, None)


def test_runs_that_did_not_finish_are_told_beside_the_table(home: Path) -> None:
    write_run(home / "runs", "bad", scores_of(1), status="failed", error="step 3: no", test=None)
    write_run(home / "runs", "late", scores_of(1), status="interrupted", test=None)
    (write_run(home / "runs", "torn", scores_of(2)) / "record.json").write_text("{")
    said = fsb(at=home)
    assert said.returncode == 0
    assert "alpha" in said.stdout
    assert not any(word in said.stdout for word in ("bad", "late", "torn"))
    told = said.stderr.splitlines()
    assert len(told) == 3
    assert "failed: step 3: no" in told[0]
    assert "interrupted" in told[1]
    assert "damaged" in told[2]


WRONG = {
    "no such folder": (["nowhere"], ("'nowhere'", "fsb run METHOD")),
    "an empty folder": (["empty"], ("no finished run in 'empty'", "fsb run METHOD")),
    "no such baseline": (["--baseline=bet"], ("'bet'", "did you mean 'beta'")),
    "no such format": (["--format=markdwon"], ("'markdwon'", "did you mean 'markdown'")),
    "a file for the terminal": (["-o", "x"], ("--format markdown",)),
    "a folder that is not there": (
        ["--format=csv", "-o", "no/x.csv"],
        ("cannot write 'no/x.csv'", "--output"),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_told_in_one_line(case: str, home: Path) -> None:
    typed, words = WRONG[case]
    (home / "empty").mkdir()
    said = fsb(*typed, at=home)
    assert said.returncode == 2
    assert said.stdout == ""
    (line,) = said.stderr.splitlines()
    assert line.startswith("error: ")
    assert all(word in line for word in words), line


def test_a_named_run_that_is_broken_is_an_error_after_the_table(home: Path) -> None:
    torn = write_run(home / "torn", "torn", scores_of(2))
    (torn / "record.json").write_text("{")
    said = fsb("runs", f"{torn}", at=home)
    assert said.returncode == 2
    assert "alpha" in said.stdout
    assert "damaged" in said.stderr


def test_comparing_imports_neither_torch_nor_all_of_scipy(home: Path) -> None:
    script = (
        "import sys, atexit\n"
        "heavy = {'torch', 'torchvision', 'scipy.stats'}\n"
        "atexit.register(lambda: print('heavy:', sorted(heavy & set(sys.modules))))\n"
        "from fewshot_bench.cli.main import main\n"
        "main()\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script, "compare", "--baseline", "beta"],
        capture_output=True, text=True, cwd=home, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert said.stdout.endswith("heavy: []\n")
    assert "alpha" in said.stdout
