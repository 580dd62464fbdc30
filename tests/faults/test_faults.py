"""Every fault gets its line and its exit code; nobody sees a traceback who did not ask for it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.command_line import Answer, fsb
from tests.faults.fault import OBEYED, Fault, meet, row
from tests.faults.page import CASES, GROUPS, PAGE
from tests.faults.records import SCRIPT


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs are made that are copied."""
    return tmp_path_factory.mktemp("stock")


def met(fault: Fault, tmp_path: Path, stock: Path, debug: bool = False) -> tuple[Answer, Path]:
    """What a fault is told, and where it was; skipped where it cannot be made."""
    if (why := fault.why_not()) is not None:
        pytest.skip(why)
    at = tmp_path.resolve() / "here"
    return meet(fault, at, stock, debug), at


@pytest.mark.parametrize("fault", CASES, ids=lambda fault: fault.what)
def test_it_is_told_as_the_table_has_it(fault: Fault, tmp_path: Path, stock: Path) -> None:
    said, at = met(fault, tmp_path, stock)
    assert "Traceback" not in said.out + said.err
    assert not OBEYED.search(said.out + said.err)
    assert "this ran" not in said.out + said.err
    assert [path.name for path in at.parent.iterdir()] == ["here"]  # nothing is written elsewhere
    assert "(--debug shows where)" not in said.err  # it was not foreseen
    assert said.code == fault.code, said.err
    if fault.code == 2 and fault.told == "error: ":
        assert said.err.splitlines()[-1].startswith("error: ")
        assert sum(line.startswith("error: ") for line in said.err.splitlines()) == 1
        assert said.out == ""
    assert row(fault, said, at) in PAGE.read_text("utf-8").splitlines()


def test_the_table_has_no_other_rows() -> None:
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    assert len(rows) == len(CASES) + len(GROUPS)
    assert len(CASES) >= 60
    assert len({fault.what for fault in CASES}) == len(CASES)


@pytest.mark.parametrize("title", GROUPS)
def test_debug_shows_where_and_changes_nothing_else(
    title: str, tmp_path: Path, stock: Path
) -> None:
    fault = next(fault for fault in GROUPS[title] if fault.told == "error: " and fault.code == 2)
    plain, _ = met(fault, tmp_path / "plain", stock)
    debug, _ = met(fault, tmp_path / "debug", stock, debug=True)
    assert "Traceback (most recent call last)" in debug.err
    assert debug.code == plain.code
    assert debug.err.splitlines()[-1] == plain.err.splitlines()[-1]


def case(what: str) -> Fault:
    """The fault that begins so."""
    return next(fault for fault in CASES if fault.what.startswith(what))


def test_a_broken_run_leaves_the_others_in_the_table(tmp_path: Path, stock: Path) -> None:
    for what in ("half a record", "text for a way", "half of episodes.csv"):
        said, _ = met(case(what), tmp_path / what, stock)
        assert "protonet" in said.out
        assert "nearest-centroid" not in said.out


def test_a_page_carries_no_script_of_a_record(tmp_path: Path, stock: Path) -> None:
    _, at = met(case("a script in a method's name"), tmp_path, stock)
    text = (at / "page/index.html").read_text("utf-8")
    assert SCRIPT not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert text.count("<script>") == text.count("</script>") == 1  # the page's own
    assert "<img src=x" not in text


def test_tables_carry_no_formula_and_no_command(tmp_path: Path, stock: Path) -> None:
    said, _ = met(case("a formula in a method's name"), tmp_path / "csv", stock)
    assert "'=cmd" in said.out
    assert not re.search(r"(^|,|\")=cmd", said.out, re.MULTILINE)
    said, _ = met(case("LaTeX in a method's name"), tmp_path / "tex", stock)
    assert r"\input" not in said.out
    assert r"\textbackslash{}input" in said.out


def test_nothing_of_a_hostile_pickle_is_run(tmp_path: Path, stock: Path) -> None:
    said, _ = met(case("a pickle for weights, with its digest"), tmp_path, stock)
    assert "this ran" not in said.out + said.err


def test_nothing_is_left_where_a_plugin_pointed(tmp_path: Path, stock: Path) -> None:
    for fault in GROUPS["In plugins"]:
        _, at = met(fault, tmp_path / str(len(fault.what)), stock)
        assert {path.name for path in at.iterdir()} <= {"site", "cache", "runs"}


def test_a_chunked_run_says_so_in_its_record(tmp_path: Path, stock: Path) -> None:
    import json

    said, at = met(case("a step that is out of memory"), tmp_path, stock)
    assert said.code == 0
    (path,) = (at / "runs").glob("*/record.json")
    record = json.loads(path.read_text("utf-8"))
    assert record["training"]["chunks"] == 2
    assert any("memory was short: from step 1 on" in note for note in record["notes"])


def test_an_error_that_nobody_foresaw_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by\nzero\x1b[2J")

    monkeypatch.setattr("fewshot_bench.hooks.registry.Registry.discover", broken)
    said = fsb("list", "methods")
    assert said.err == "error: ZeroDivisionError: by zero\\x1b[2J (--debug shows where)\n"
    assert said.code == 1
