"""``pytest -m gpu`` as a part of ``measure.py``: a row for each test, with what it measured.

A failure that a test declares beforehand is ``known``, with its reason: an answer, and no fault.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--keep", type=Path, help="unused")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--end", type=float, default=time.monotonic() + 120, help="by time.monotonic()"
    )
    parser.add_argument("--small", action="store_true")
    asked, _ = parser.parse_known_args()  # options of other parts are ignored
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = [sys.executable, "-m", "pytest", "tests/gpu", "-m", "gpu", "-o", "addopts="]
        words += ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-W", "default"]
        words += ["--junitxml", str(report), "-o", "junit_family=xunit1"]
        words += ["-k", "protonet and float64"] if asked.small else []
        environment = os.environ | {"FSB_TEST_DEVICE": asked.device}
        process = subprocess.Popen(words, cwd=ROOT, env=environment)
        try:
            ended = process.wait(max(0.0, asked.end - time.monotonic()))
        except subprocess.TimeoutExpired:  # it then writes what it has
            process.send_signal(signal.SIGINT)
            try:
                ended = process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                ended = process.wait()
        if not report.exists():
            print("pytest left no report")
            return 1
        with asked.out.open("a", encoding="utf-8") as out:
            for case in ElementTree.parse(report).iter("testcase"):
                if case.get("name") is None:  # that pytest was interrupted
                    continue
                out.write(json.dumps(row_of(case)) + "\n")
    return 0 if ended in (0, 5) else 1


def row_of(case: ElementTree.Element) -> dict[str, Any]:
    """The row of a test, from pytest's report."""
    row: dict[str, Any] = {"test": case.get("name"), "seconds": float(case.get("time", 0))}
    for kind in ("failure", "error", "skipped"):
        if (found := case.find(kind)) is not None:
            name = "known" if found.get("type") == "pytest.xfail" else kind
            row[name] = (found.get("message") or "")[:600]
    return row | {p.get("name", ""): p.get("value") for p in case.iter("property")}


if __name__ == "__main__":
    raise SystemExit(main())
