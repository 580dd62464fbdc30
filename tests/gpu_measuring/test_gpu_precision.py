"""What other precisions change, of methods that have them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch


@pytest.fixture
def rows(scripts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The rows of ``precision`` with so many seconds, every part of a run made, nothing trained."""
    correctness = scripts.correctness
    monkeypatch.setattr(correctness.work, "dataset", lambda: "glyphs")
    monkeypatch.setattr(correctness, "make_trainer", lambda parts: SimpleNamespace(run=int))
    scores = SimpleNamespace(accuracy=np.linspace(0, 1, 8))
    monkeypatch.setattr(correctness, "evaluate", lambda *_, **__: scores)

    def of(seconds: float) -> list[dict[str, Any]]:
        out = tmp_path / "rows"
        end = time.monotonic() + seconds
        cpu = torch.device("cpu")
        correctness.precision(scripts.bench.Bench(cpu, False, tmp_path, end, out))
        return [json.loads(line) for line in out.read_text("utf-8").splitlines()]

    return of


def test_a_precision_that_a_method_does_not_declare_is_an_answer(scripts: Any, rows: Any) -> None:
    """And no error, which would have every visit measure all of them again."""
    found = rows(300)
    assert len(found) == 4 * 3
    assert scripts.measure.whole({"rows": found, "error": None})
    refused = [row for row in found if "not_offered" in row]
    assert {(row["method"], row["precision"]) for row in refused} == {
        ("maml", "bf16"), ("metagan", "bf16"),
    }  # fmt: skip
    table = "\n".join(
        scripts.report.rounding(scripts.reading.Results({"parts": {"precision": {"rows": found}}}))
    )
    assert "| maml | bf16 | maml does not declare autocast |  |  |" in table
    assert "| protonet | bf16 | 50.00 | +0.00 ± 0.00 | +0.00 ± 0.00 |" in table


def test_a_method_is_not_begun_without_its_time(rows: Any) -> None:
    """The first row took twelve seconds on an H200."""
    assert rows(10) == [{"left": "protonet fp32"}]
