"""Every part in miniature on a CPU, and the GPU's own tests."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from tests.gpu_measuring.gpu_scripts import GPU, ROOT

PARTS = {
    "machine", "tests", "repeat", "precision", "agree", "maml", "protonet", "evaluation", "metagan",
    "profile", "peers", "rows", "growth",
}  # fmt: skip


@pytest.mark.exhaustive
def test_every_part_in_miniature_and_its_report(tmp_path: Path, scripts: Any) -> None:
    """So that no part is first tried on a GPU. Alone on two cores it takes a minute and a half."""
    # So many minutes that no share is short on a busy machine.
    words = ["--small", "--device", "cpu", "--minutes", "40", "--out", str(tmp_path / "out")]
    ended = subprocess.run(
        [sys.executable, str(GPU / "measure.py"), *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    results = json.loads((tmp_path / "out/results.json").read_text("utf-8"))
    assert set(results["parts"]) == PARTS == set(scripts.report.PARTS)
    for name, part in results["parts"].items():
        assert part["error"] is None, (name, part["error"])
        assert part["rows"], name
        if name not in ("peers", "agree"):  # whose environment may not have been made
            assert not [row for row in part["rows"] if "error" in row or "failure" in row], name
        assert f"{name}: ok" in ended.stdout
    assert results["parts"]["agree"]["rows"][0]["agrees"] is True  # ours in float32
    back = [path for path in (tmp_path / "out").iterdir()]
    assert len(back) <= 5
    assert all(path.stat().st_size < 16 * 2**20 for path in back)

    assert scripts.report.main([str(tmp_path / "out"), "--to", str(tmp_path / "page")]) == 0
    (page,) = (tmp_path / "page").glob("*-gpu.md")
    text = page.read_text("utf-8")
    assert "A rehearsal in miniature: no figures." in text
    for title in scripts.report.SECTIONS:
        section = text.partition(f"## {title}\n\n")[2].partition("\n## ")[0]
        assert section.strip(), title
        assert section.strip() != "Unmeasured.", title
    assert scripts.report.main([str(tmp_path / "out")]) == 2  # no figures: nowhere else


SLICE = (
    "(protonet or relationnet) and not metagan or batched and float64 and maml or same_episodes "
    "or killed"
)


@pytest.mark.exhaustive
def test_the_tests_for_a_gpu_run_on_a_cpu(tmp_path: Path) -> None:
    """Cheap cases of every function that a CPU can run."""
    report = tmp_path / "report.xml"
    words = ["tests/gpu", "-m", "gpu", "-k", SLICE, "-o", "addopts=", "-p", "no:cacheprovider"]
    words += ["-p", "no:randomly", "-q", "--junitxml", str(report), "-o", "junit_family=xunit1"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"FSB_TEST_DEVICE": "cpu"}, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    cases = ElementTree.parse(report).iter("testcase")
    names = [str(case.get("name")) for case in cases if case.find("skipped") is None]
    assert len(names) > 12
    source = ast.parse((ROOT / "tests/gpu/test_gpu.py").read_text("utf-8"))
    possible = {
        node.name
        for node in source.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        and "only_cuda" not in map(ast.unparse, node.decorator_list)
    }  # fmt: skip
    assert {name.partition("[")[0] for name in names} == possible
