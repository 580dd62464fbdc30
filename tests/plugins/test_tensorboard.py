"""The TensorBoard observer, and the one of the documentation for another tracker."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fsb_tensorboard.board import TensorBoard, step_times, tag
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fewshot_bench.hooks.lifecycle import RunHooks, is_observer
from fewshot_bench.results.record import write_table
from tests.command_line import Process, without

ROOT = Path(__file__).parents[2]


def observed(observer: Any, folder: Path) -> None:
    """Call an observer as a run of two steps does."""
    hooks = RunHooks({"it": observer})
    config = {"way": 5, "method_options": {"lr": 0.1}}
    hooks.run_started(config=config, folder=folder, resumed_from=0)
    for step in (1, 2):
        metrics = {"step": step, "loss_meta": 1 / step, "gradient_norm_meta": 3.0, "accuracy": 0.5}
        hooks.train_logged(step=step, metrics=metrics)
    for split, first in (("validation", 0.5), ("test", 0.25)):
        bound = hooks.bind(split=split, step=2)
        bound.evaluation_finished(scores=np.array([first, 0.75]), metrics={})
    write_table(folder / "steps.csv", {"step": [1, 2], "step_ms": [10.0, 30.0]})
    hooks.run_finished(record={"test": {"accuracy": 0.5}})


def test_what_tensorboard_reads(tmp_path: Path) -> None:
    observed(TensorBoard, tmp_path)
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    scalars = {
        name: [(event.step, event.value) for event in read.Scalars(name)]
        for name in read.Tags()["scalars"]
    }
    assert scalars == {
        "loss/meta": [(1, 1.0), (2, 0.5)],
        "gradient norm/meta": [(1, 3.0), (2, 3.0)],
        "train/accuracy": [(1, 0.5), (2, 0.5)],
        "accuracy/validation": [(2, 0.625)],
        "accuracy/test": [(2, 0.5)],
        "time/step_ms": [(1, 10.0), (2, 30.0)],
    }
    (text,) = read.Tensors("configuration/text_summary")
    assert b'"way": 5' in text.tensor_proto.string_val[0]


def test_tags_and_step_times() -> None:
    assert tag("loss_generator") == "loss/generator"
    assert tag("p_real_of_fake") == "train/p_real_of_fake"
    step = np.arange(1.0, 2001.0)
    table = {"step": step, "loss_meta": step, "step_ms": step, "sample_ms": np.full(2000, np.nan)}
    times = step_times(table)
    assert len(times) == 1000  # phases that were not measured are left out
    assert times[0] == ("time/step_ms", 2, 1.5)
    assert times[-1] == ("time/step_ms", 2000, 1999.5)


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, fsb_process: Process) -> None:
    words = ("run", "nearest-centroid", "--with", "tensorboard")
    answer = fsb_process(*words, at=tmp_path, before=without("tensorboard"))
    assert answer.code == 2
    (line,) = answer.err.splitlines()
    assert "pip install 'fewshot-bench[tensorboard]'" in line
    assert not list(tmp_path.iterdir())


def test_the_tracker_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs/plugins.md").read_text("utf-8")
    (code,) = (b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "mlflow" in b)
    heard: list[tuple[str, Any]] = []

    def listen(name: str) -> Any:
        return lambda *a, **k: heard.append((name, a))

    calls = ("start_run", "log_params", "log_metrics", "log_metric", "log_artifact", "end_run")
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(**{n: listen(n) for n in calls}))
    space: dict[str, Any] = {}
    exec(compile(code, "docs/plugins.md", "exec"), space)  # noqa: S102
    observer = space["MLflow"]
    assert is_observer(observer)
    assert len([line for line in code.splitlines() if line]) <= 20
    observed(observer, tmp_path)
    logged = [arguments for name, arguments in heard if name == "log_metrics"]
    assert [(numbers["loss_meta"], step) for numbers, step in logged] == [(1.0, 1), (0.5, 2)]
    assert ("log_metric", ("test accuracy", 0.5, 2)) in heard
    assert heard[-1] == ("end_run", ())
