"""The benchmark scripts work; their figures are for quiet machines, not for tests."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


def script(*arguments: str) -> str:
    said = subprocess.run(
        [sys.executable, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    return said.stdout


def test_one_command_writes_one_table(tmp_path: Path) -> None:
    items = ("W1_one_shot_one_step", "W3", "W5", "W6_help")
    out = script(
        "run.py", "--small", "--turns", "2", "--no-peers", "--items", *items, "--out", str(tmp_path)
    )
    (path,) = tmp_path.glob("*.json")
    results = json.loads(path.read_text("utf-8"))
    assert set(results["items"]) == set(items)
    for item in results["items"].values():
        assert 0 < item["spread"][0] <= item["ours"] <= item["spread"][1]
        assert item["ratio_to_best_peer"] is None
    # The limit is measured at another moment; how near it is says nothing on a busy machine.
    assert results["items"]["W1_one_shot_one_step"]["fraction_of_limit"] > 0
    assert path.with_suffix(".md").read_text("utf-8") in out
    assert all(item in out for item in items)


def test_checkpoints_cost_less_than_the_bar(tmp_path: Path) -> None:
    """2 % of step time at the default interval; here it is far below, or something is wrong."""
    script("checkpoints.py", "--small", "--turns", "2", "--out", str(tmp_path))
    (path,) = tmp_path.glob("*-checkpoints.md")
    shares = re.findall(r"\| ([\d.]+)% \|", path.read_text("utf-8"))
    assert len(shares) == 3
    assert all(0 < float(share) < 2 for share in shares)


def test_an_unknown_item_is_told() -> None:
    with pytest.raises(AssertionError, match="no item 'W9'; the items are W1_second_order"):
        script("run.py", "--items", "W9")


def test_what_a_gpu_is_measured_by_runs_without_one(tmp_path: Path) -> None:
    """Every part in miniature, so that the script is never first tried on a GPU."""
    out = script(
        "gpu/measure.py", "--small", "--device", "cpu", "--minutes", "9", "--out", str(tmp_path)
    )
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert set(results["parts"]) == {
        "machine", "tests", "precision", "maml", "protonet", "evaluation", "metagan", "profile",
        "peers", "rows", "growth",
    }  # fmt: skip
    for name, part in results["parts"].items():
        assert part["error"] is None, (name, part["error"])
        assert part["rows"], name
        if name != "peers":  # whose environment may not have been made
            assert not [row for row in part["rows"] if "error" in row or "failure" in row], name
        assert f"{name}: ok" in out


def test_a_part_that_fails_is_a_result(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "gpu/measure.py", "--device", "cuda:99", "--minutes", "1", "--only",
         "rows", "--small", "--out", str(tmp_path)],
        cwd=FOLDER, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    parts = json.loads((tmp_path / "results.json").read_text("utf-8"))["parts"]
    assert "exit code 1" in parts["machine"]["error"]
    assert parts["rows"]["rows"][0]["error"] == "exit status 2"
    assert "Traceback" not in ended.stdout
