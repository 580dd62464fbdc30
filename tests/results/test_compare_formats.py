"""What the exporters write: whole, escaped, and the numbers in full."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewshot_bench.results.blocks import blocks
from fewshot_bench.results.comparison import Comparison, compare
from fewshot_bench.results.formats.data import to_csv, to_json
from fewshot_bench.results.formats.latex import latex
from fewshot_bench.results.formats.markdown import markdown
from fewshot_bench.results.formats.terminal import terminal
from fewshot_bench.results.runs import load_runs
from tests.patience import PATIENCE
from tests.results.made_up_runs import EPISODES, scores_of, task, write_run

DAGGER = {"transductive": True}
TIMING = {
    "step_ms": {"median": 711.5, "p95": 900},
    "tasks_per_s": 5.6,
    "adapt_ms": 3,
    "predict_ms": 4,
}


@pytest.fixture
def two_tables(tmp_path: Path) -> Comparison:
    """Two protocols, the first with two settings; names that markup trips over; a tie."""
    scores = scores_of(1, 0.7)
    write_run(tmp_path, "base", scores, timing=TIMING)
    write_run(tmp_path, "a_b|c%", scores_of(2, 0.9), test=DAGGER, timing=TIMING)
    write_run(tmp_path, "same", scores)
    write_run(tmp_path, "base", scores_of(3), task=task(5, 1))
    write_run(tmp_path, "a_b|c%", scores_of(3)[::-1], task=task(5, 1), test=DAGGER)
    write_run(tmp_path, "base", scores_of(5), dataset="signs")
    return compare(load_runs([tmp_path])[0], "base", ranks=True)


def test_markdown_is_made_of_tables(two_tables: Comparison) -> None:
    text = markdown(two_tables)
    found = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    expected = [b for table in two_tables.tables for b in blocks(table, two_tables)]
    assert len(found) == len(expected) == 4
    for part, block in zip(found, expected, strict=True):
        bars = {line.replace(r"\|", "").count("|") for line in part.splitlines()}
        assert bars == {len(block.heads) + 1 + (len(block.sections) > 1)}
        lines = sum(map(len, block.sections.values()))
        assert len(part.splitlines()) == lines + 2
    assert r"a_b\|c%" in text
    assert "| +0.00 | no variation |" in text
    assert text.count("† transductive") == 1
    assert "| 5-way 1-shot | a_b" in text


def test_latex_is_balanced_and_escaped(two_tables: Comparison) -> None:
    text = latex(two_tables)
    for word in ("table", "tabular", "minipage"):
        assert text.count(rf"\begin{{{word}}}") == text.count(rf"\end{{{word}}}") > 0
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 4
    for part in text.split(r"\begin{tabular}")[1:]:
        columns = re.match(r"\{(.*)\}\n", part)
        assert columns is not None
        lines = [line for line in part.split(r"\end{tabular}")[0].splitlines() if "&" in line]
        assert {line.replace(r"\&", "").count("&") + 1 for line in lines} == {len(columns[1])}
    assert r"a\_b$|$c\%" in text
    assert "$-$" in text or "+" in text
    body = text.split("\n", 1)[1]
    assert text.isascii()
    assert not re.search(r"(?<!\\)[%#_]", body.replace("$d_z$", ""))
    assert body.count("{") == body.count("}")
    assert r"\textbf{" in text
    assert r"\underline{" in text
    assert "Underlined: the highest accuracy" in text
    assert "*:" not in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(two_tables: Comparison, tmp_path: Path) -> None:
    start, end = "\\documentclass{article}\n\\usepackage{booktabs}\n", "\\end{document}\n"
    (tmp_path / "a.tex").write_text(start + "\\begin{document}\n" + latex(two_tables) + end)
    said = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert said.returncode == 0, said.stdout[-2000:]
    assert "Overfull" not in said.stdout


def test_a_long_name_is_folded_in_latex(tmp_path: Path) -> None:
    write_run(tmp_path, "short", scores_of(1))
    assert r"\begin{tabular}{lr}" in latex(compare(load_runs([tmp_path])[0]))
    write_run(tmp_path, "long" * 9, scores_of(1))
    assert r"\begin{tabular}{p{0.25\linewidth}r}" in latex(compare(load_runs([tmp_path])[0]))


def test_json_has_each_row_and_setting(two_tables: Comparison) -> None:
    first, second = json.loads(to_json(two_tables))["tables"]
    assert [setting["name"] for setting in first["settings"]] == ["5-way 1-shot", "5-way 5-shot"]
    assert first["baselines"] == {"5-way 1-shot": "base", "5-way 5-shot": "base"}
    assert second["differs"] == ["dataset signs instead of marks"]
    rows = {row["name"]: row["settings"] for row in first["rows"]}
    assert rows["same"]["5-way 1-shot"] is None
    found = rows["a_b|c%"]["5-way 5-shot"]
    other, base = scores_of(2, 0.9), scores_of(1, 0.7)
    assert found["accuracy"] == pytest.approx(other.mean(), rel=1e-12)
    assert found["interval"][1] - found["accuracy"] == pytest.approx(found["half_width"], rel=1e-9)
    assert found["transductive"] is True
    assert found["seeds"] == [0]
    assert len(found["runs"]) == 1
    assert found["step_ms"] == 711.5
    paired = found["paired"]
    assert paired["difference"] == pytest.approx((other - base).mean(), rel=1e-9)
    assert paired["n"] == EPISODES
    assert paired["p_holm"] >= paired["p_t"] > 0
    assert 0 < paired["p_wilcoxon"] < 1e-3
    assert paired["effect_size"] == pytest.approx(
        (other - base).mean() / (other - base).std(ddof=1), rel=1e-9
    )
    assert paired["interval"][0] < paired["difference"] < paired["interval"][1]
    same = rows["same"]["5-way 5-shot"]["paired"]
    assert (same["difference"], same["p_t"], same["p_holm"]) == (0, None, None)
    assert rows["base"]["5-way 5-shot"]["paired"] is None
    assert len(first["sentences"]) == 3


def test_csv_has_a_line_per_row_and_setting(two_tables: Comparison) -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(two_tables))))
    cells = [cell for table in two_tables.tables for _, _, cell in table.filled]
    assert [float(line["accuracy"]) for line in lines] == [cell.accuracy for cell in cells]
    assert len({line["protocol"] for line in lines}) == 2
    assert {line["setting"] for line in lines} == {"5-way 1-shot", "5-way 5-shot"}
    by_name = {(line["row"], line["setting"]): line for line in lines}
    line = by_name["a_b|c%", "5-way 5-shot"]
    assert float(line["paired_difference"]) == pytest.approx(
        float(np.mean(scores_of(2, 0.9) - scores_of(1, 0.7))), rel=1e-9
    )
    assert float(line["interval_low"]) < float(line["accuracy"]) < float(line["interval_high"])
    assert by_name["base", "5-way 5-shot"]["paired_difference"] == ""
    assert line["step_ms"] == "711.5"


def plain(comparison: Comparison, width: int) -> list[str]:
    return terminal(comparison, width, lambda text, style: text).splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_the_terminal_keeps_its_width(width: int, two_tables: Comparison) -> None:
    lines = plain(two_tables, width)
    assert max(map(len, lines)) <= width
    assert any("±" in line and line.startswith("a_b|c%") for line in lines)


def test_marks_do_not_move_the_numbers(two_tables: Comparison) -> None:
    """The ± of a column stand below each other, whatever follows."""
    lines = [line for line in plain(two_tables, 80)[:8] if "±" in line and "width" not in line]
    assert len(lines) == 3
    assert len({line.rindex("±") for line in lines}) == 1
    assert any(line.endswith("†") for line in lines)


def test_settings_that_find_no_room_go_on_below(tmp_path: Path) -> None:
    for shot in range(1, 9):
        write_run(tmp_path, "m", scores_of(shot), task=task(5, shot))
    lines = plain(compare(load_runs([tmp_path])[0]), 60)
    heads = [line for line in lines if line.startswith("accuracy, %")]
    assert len(heads) == 3
    assert re.findall(r"5-way \d-shot", " ".join(heads)) == [f"5-way {i}-shot" for i in range(1, 9)]
    assert max(map(len, lines)) <= 60


def test_only_so_many_sentences_fit_a_screen(tmp_path: Path) -> None:
    for i in range(15):
        write_run(tmp_path, f"m{i:02}", scores_of(i))
    text = " ".join(plain(compare(load_runs([tmp_path])[0], "m00"), 200))
    assert text.count("On 5-way 5-shot") == 12
    assert "... and 2 more; --format json has all." in text


def test_the_exporter_of_the_documentation_works(two_tables: Comparison) -> None:
    page = Path(__file__).parents[2] / "docs/compare.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    space: dict[str, Any] = {}
    exec(code, space)  # noqa: S102
    assert "5-way 5-shot: a_b|c% 0.9" in space["best_of_each"](two_tables)


def test_the_documentation_names_every_key_of_a_cell(two_tables: Comparison) -> None:
    page = (Path(__file__).parents[2] / "docs/compare.md").read_text("utf-8")
    (told,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    cell = json.loads(told)
    (found,) = [
        row["settings"]["5-way 5-shot"]
        for row in json.loads(to_json(two_tables))["tables"][0]["rows"]
        if row["name"] == "same"
    ]
    assert list(cell) == list(found)
    assert list(cell["paired"]) == list(found["paired"])
