"""The script that runs the tests again and again finds what fails now and then."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import repeat

# The second fails where it runs after the first, in the same process.
ORDERED = """
STATE = []


def test_a():
    STATE.append(1)


def test_b():
    assert not STATE
"""


def test_an_order_that_fails_is_told_with_what_repeats_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tests = tmp_path / "test_ordered.py"
    tests.write_text(ORDERED, "utf-8")
    config = tmp_path / "pytest.ini"
    config.write_text("[pytest]\naddopts = -q\n", "utf-8")
    where = ["-c", str(config), "-p", "no:cacheprovider", str(tests)]
    logs = ["--logs", str(tmp_path / "logs"), "--busy", "0"]
    # The seeds of both orders, one after the other.
    bad = repeat.main(["--runs", "2", "--processes", "1", "--seed", "0", *logs, *where])
    said = capfd.readouterr().out
    assert bad == 1
    assert "1 of 2 runs failed" in said
    assert said.count("test_ordered.py::test_b\n    uv run pytest -n 0 --randomly-seed=0\n") == 2
    assert "::test_a" not in said


def test_what_ran_before_a_failure_in_its_process_is_known(tmp_path: Path) -> None:
    log = tmp_path / "1.log"
    log.write_text(
        "[gw0] [ 20%] PASSED tests/x.py::a \n[gw1] [ 40%] PASSED tests/x.py::b[c d] \n"
        "[gw1] [ 60%] FAILED tests/y.py::e \n[gw0] [ 80%] ERROR tests/y.py::f[1] \n"
        "[gw1] [100%] PASSED tests/y.py::g \n",
        "utf-8",
    )
    found = list(repeat.failed(log))
    before = {"tests/y.py::e": ["tests/x.py::b[c d]"], "tests/y.py::f[1]": ["tests/x.py::a"]}
    assert dict(found) == before
    said = repeat.again(1, *found[0][:1], 7, 2, found[0][1], log)
    assert said == f"uv run pytest -n 0 -p no:randomly @{tmp_path / '1-failure-1.txt'}"
    order = (tmp_path / "1-failure-1.txt").read_text("utf-8").splitlines()
    assert order == ["tests/x.py::b[c d]", "tests/y.py::e"]
