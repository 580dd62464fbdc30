"""``fsb compare`` on runs that nobody ran."""

from __future__ import annotations

import csv
import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewshot_bench.results.stats import student_interval
from tests.command_line import fsb, fsb_process, reporting
from tests.results.made_up_runs import made_up, scores_of, task, write_run

TIMING = {
    "step_ms": {"median": 1360.502, "p95": 1434.43},
    "tasks_per_s": 0.735,
    "adapt_ms": 35.6456,
    "predict_ms": 114.036,
    "peak_memory_bytes": 1_405_616_128,
}
TRAINING = {"steps": 400, "seconds": 412.4, "warmup_seconds": 4.1, "engine": "threads"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder whose runs/ holds two settings, the second with a clear winner."""
    runs = tmp_path / "runs"
    timed: dict[str, Any] = {"timing": TIMING, "training": TRAINING, "parameters": 111_936}
    write_run(runs, "alpha", scores_of(1, 0.95), **timed)
    write_run(runs, "beta", scores_of(2, 0.8), test={"transductive": True}, **timed)
    write_run(runs, "gamma", scores_of(3, 0.6))
    write_run(runs, "beta", scores_of(4, 0.7), task=task(5, 1), **timed)
    return tmp_path


def shown(home: Path, *arguments: str, columns: int = 80) -> str:
    answer = fsb("compare", *arguments, at=home, COLUMNS=str(columns)).succeeded()
    assert answer.err == ""
    return answer.out


def test_the_table_in_eighty_columns(home: Path) -> None:
    lines = shown(home).splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert lines[0] == "marks (official), 15 queries per class, 40 closed episodes"
    assert lines[2].split("  ")[0] == "accuracy, %"
    assert lines[2].split("%")[1].split() == ["5-way", "1-shot", "5-way", "5-shot"]
    assert [line.split()[0] for line in lines[3:6]] == ["alpha", "beta", "gamma"]
    beta = student_interval(scores_of(2, 0.8))
    assert beta.half_width is not None
    assert f"{100 * beta.mean:.2f} ± {100 * beta.half_width:.2f} †" in lines[4]
    assert "95 % interval (Student's t over episodes)" in text
    assert "† transductive" in text
    assert "Bold, ^: better than every other method" in text
    assert any(line.split()[:2] == ["alpha", "1361"] for line in lines)


def test_columns_give_way_in_order_and_are_named(home: Path) -> None:
    """Accuracies and differences stay, down to forty columns."""
    wide = shown(home, "--baseline=gamma", columns=160)
    assert "No room for" not in wide
    assert all(head in wide for head in ("weights", "peak", "train", "classify"))
    gap = 100 * float((scores_of(1, 0.95) - scores_of(3, 0.6)).mean())
    write_run(home / "runs", "a-method-with-a-name-far-too-long", scores_of(9))
    before: set[str] = set()
    for columns in (70, 50, 40):
        text = shown(home, "--baseline=gamma", columns=columns)
        assert max(map(len, text.splitlines())) <= columns
        plain = " ".join(text.split())
        dropped = set(plain.split("No room for: ")[-1].split(";")[0].split(", "))
        assert before < dropped
        before = dropped
        assert f"{gap:+.2f}" in plain
        assert "--format csv" in plain
        assert "…" not in plain
        assert text.count("\na-method-with-a-") >= 2  # folded, not cut


def test_the_baseline_is_named_and_told_in_sentences(home: Path) -> None:
    text = " ".join(shown(home, "--baseline", "gamma").split())
    assert "Differences from gamma on the same episodes" in text
    assert "On 5-way 5-shot, this trained alpha is better than gamma by" in text
    assert "No run of the baseline on 5-way 1-shot." in text


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
        assert rows[3]["step_ms"] == ""
    if format == "json":
        (table,) = json.loads(printed)["tables"]
        alpha, beta, gamma = (row["settings"] for row in table["rows"])
        assert 0 < alpha["5-way 5-shot"]["paired"]["p_wilcoxon"] < 1e-3
        assert alpha["5-way 5-shot"]["mark"] == "best"
        assert beta["5-way 1-shot"]["paired"] is None
        assert gamma["5-way 1-shot"] is None


def test_the_interval_and_the_target_are_options(home: Path) -> None:
    text = " ".join(shown(home, "--interval=seeds").split())
    assert "(one seed)" in text
    said = fsb("compare", "--interval=bca", "--target=0.9", at=home)
    assert said.code == 0
    assert "(BCa bootstrap over episodes)" in " ".join(said.out.split())
    assert "validation.csv" in said.err  # made-up runs have no curve


def test_runs_that_did_not_finish_are_told_beside_the_table(home: Path) -> None:
    write_run(home / "runs", "bad", scores_of(1), status="failed", error="step 3: no", test=None)
    write_run(home / "runs", "late", scores_of(1), status="interrupted", test=None)
    (write_run(home / "runs", "torn", scores_of(2)) / "record.json").write_text("{")
    said = fsb("compare", at=home)
    assert said.code == 0
    assert "alpha" in said.out
    assert not any(word in said.out for word in ("bad", "late", "torn"))
    told = said.err.splitlines()
    assert len(told) == 3
    assert any("failed: step 3: no" in line for line in told)
    assert any("did not finish; to resume it: fsb resume runs/late" in line for line in told)
    assert any("damaged" in line for line in told)


WRONG = {
    "no such folder": (["nowhere"], ("'nowhere'", "fsb run METHOD")),
    "an empty folder": (["empty"], ("no finished run in 'empty'", "fsb run METHOD")),
    "no such baseline": (["--baseline=bet"], ("'bet'", "did you mean 'beta'")),
    "no such interval": (["--interval=cba"], ("'cba'", "did you mean 'bca'")),
    "no such level": (["--level=95"], ("--level", "got 95", "0.95")),
    "no such target": (["--target=95"], ("--target", "got 95", "0.95")),
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
    said = fsb("compare", *typed, at=home)
    assert said.code == 2
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("error: ")
    assert all(word in line for word in words), line


def _spoil(home: Path, case: str) -> Path:
    """A folder that cannot be used as it is."""
    scores = scores_of(9)
    if case == "a newer schema":
        return write_run(home / "odd", "odd", scores, schema_version=99)
    if case == "one method twice":
        return write_run(home / "odd", "gamma", scores_of(3, 0.6))
    if case == "mixed protocols":
        return write_run(home / "odd", "odd", scores, dataset="signs")
    folder = write_run(home / "odd", "odd", scores)
    if case == "without episodes":
        (folder / "episodes.csv").unlink()
    else:
        path = folder / {"a torn record": "record.json", "torn episodes": "episodes.csv"}[case]
        path.write_text(path.read_text()[:-200])
    return folder


SPOILT = {
    "a newer schema": "schema version 99",
    "without episodes": "episodes.csv' is missing",
    "a torn record": "record.json' is damaged",
    "torn episodes": "it may be cut off",
    "one method twice": "duplicates gamma of seed 0 on 5-way 5-shot; using the newer",
    "mixed protocols": "mixed protocols, 2 tables: dataset signs instead of marks",
}


@pytest.mark.parametrize("case", SPOILT)
def test_what_was_named_and_cannot_be_used_is_told_and_the_rest_shown(
    case: str, home: Path
) -> None:
    said = fsb("compare", "runs", f"{_spoil(home, case)}", at=home)
    assert said.code == 2
    assert "alpha" in said.out
    assert "gamma" in said.out
    (line,) = said.err.splitlines()
    assert SPOILT[case] in line


def test_comparing_imports_neither_torch_nor_all_of_scipy(home: Path) -> None:
    heavy = reporting("torch", "torchvision", "scipy.stats", "rich")
    answer = fsb_process("compare", at=home, before=heavy).succeeded()
    assert answer.out.endswith("imported: []\n")
    assert "alpha" in answer.out


def test_the_best_is_marked_where_bold_is_not_seen(home: Path) -> None:
    lines = shown(home).splitlines()
    assert lines[3].split()[-1] == "^"
    assert sum("^" in line for line in lines[3:6]) == 1


def test_signed_ranks_are_on_the_screen_where_there_is_room(home: Path) -> None:
    text = shown(home, "--baseline", "gamma", columns=160)
    (line,) = (one for one in text.splitlines() if one.startswith("against gamma"))
    assert "Wilcoxon" in " ".join(text.split())
    assert "p" in line.split()


def test_a_run_named_twice_is_told(home: Path) -> None:
    run = next((home / "runs").glob("alpha-*"))
    said = fsb("compare", f"{run}", f"{run}", at=home)
    assert said.code == 2
    assert said.err == f"left out: '{run}' is named twice; it counts once.\n"


def test_a_table_without_the_baseline_says_so(home: Path) -> None:
    write_run(home / "runs", "gamma", scores_of(5), dataset="signs")
    text = " ".join(fsb("compare", "--baseline", "beta", at=home).out.split())
    assert text.count("No run of the baseline beta is on these episodes.") == 1


@pytest.mark.exhaustive
@pytest.mark.parametrize("seeds", [1, 20])
def test_a_thousand_records_take_three_seconds(
    seeds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of processor time, so that a busy machine does not fail it: 600 episodes a record."""
    rng = np.random.default_rng(0)
    numbers = {"episode": range(600), "adapt_ms": rng.random(600)}
    numbers |= {f"class_{c}": rng.integers(0, 423, 600) for c in range(5)}
    for i in range(1000):
        row, setting, seed = i // seeds // 2, i // seeds % 2, i % seeds
        scores = rng.binomial(75, 0.8 + row / 10_000, 600) / 75
        folder = tmp_path / f"m{row}-{setting}-{seed}"
        folder.mkdir()
        record = made_up(
            f"m{row}", scores, folder.name, seed=seed, task=task(5, 1 + 4 * setting),
            timing=TIMING, training=TRAINING,
        )  # fmt: skip
        (folder / "record.json").write_text(json.dumps(record))
        columns = {**numbers, "accuracy": scores}
        lines = [",".join(columns)]
        lines += [",".join(map(str, line)) for line in zip(*columns.values(), strict=True)]
        (folder / "episodes.csv").write_text("\n".join(lines) + "\n")
    # As an installed command has it: with the bytecode of what it imports.
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "")
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path / ".bytecode"))
    assert fsb_process("compare", "m0-0-0", "m1-0-0", "--baseline=m1", at=tmp_path).code == 0
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = fsb_process("compare", ".", "--baseline=m1", at=tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert said.code == 0, said.err
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert spent < 3
