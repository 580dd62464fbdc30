"""Pictures of a method are kept, and keeping them changes no number."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import fewshot_bench
from fewshot_bench import Method, Task
from fewshot_bench.config.resolve import configure
from fewshot_bench.engine.pictures import Pictures, start_pictures
from fewshot_bench.errors import PluginError
from fewshot_bench.results.record import read_table
from fewshot_bench.runs.context import RunContext
from fewshot_bench.runs.prepare import prepare
from fewshot_bench.runs.train import run
from fewshot_bench.testing import tiny_episode
from tests.engine.toys import logged

SMALL: dict[str, Any] = {
    "dataset": "glyphs", "way": 3, "shot": 2, "query": 2, "steps": 4, "task_batch": 2,
    "validate_every": 2, "validation_episodes": 3, "episodes": 3, "backbone_channels": 4,
    "train_classes": 8, "validation_classes": 6, "test_classes": 6,
}  # fmt: skip


class Draws(Method):
    """Shows its noise and whether it is in training."""

    def __init__(self, shape: tuple[int, ...] = (1, 2, 1, 1, 4, 4)) -> None:
        super().__init__(Task(2, 1, 1))
        self.shape = shape
        self.was_training: bool | None = None

    def pictures(self, support):
        self.was_training = self.training
        return {"halves": torch.full(self.shape, 0.5)}


def keep(method: Method, folder: Path) -> bool:
    episode = tiny_episode(way=2, shot=1, query=1, tasks=1, image_shape=(1, 4, 4))
    return Pictures(method, episode, (0.0, 1.0), folder).save(20)


def test_files_and_values(tmp_path: Path) -> None:
    method = Draws().train()
    assert keep(method, tmp_path)
    assert (method.was_training, method.training) == (False, True)
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == ["step-00000020.npz", "task.npz"]
    with np.load(tmp_path / "pictures" / names[0], allow_pickle=False) as drawn:
        assert drawn["halves"].shape == (2, 1, 1, 4, 4)
        assert drawn["halves"].dtype == np.uint8
        assert (drawn["halves"] == 128).all()
    with np.load(tmp_path / "pictures" / "task.npz", allow_pickle=False) as task:
        assert task["support"].shape == (2, 1, 1, 4, 4)
        assert task["class_ids"].shape == (2,)


def test_a_method_that_draws_nothing_or_no_images(tmp_path: Path) -> None:
    assert not keep(Method(Task(2, 1, 1)), tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(PluginError, match=r"Draws.pictures.*for 'halves', got \(1, 2\)"):
        keep(Draws((1, 2)), tmp_path)


def test_pictures_change_no_number_of_a_run(tmp_path: Path) -> None:
    own = {"runs_dir": str(tmp_path / "runs"), "cache_dir": str(tmp_path / "cache")}
    records = [
        fewshot_bench.run("metagan", pictures=pictures, **SMALL, **own)
        for pictures in (False, True)
    ]
    without, having = (tmp_path / "runs" / record["id"] for record in records)
    assert not (without / "pictures").exists()
    kept = sorted(path.name for path in (having / "pictures").iterdir())
    steps = ["step-00000000.npz", "step-00000002.npz", "step-00000004.npz"]
    assert kept == ["quality.jsonl", *steps, "task.npz"]
    steps = [having / "pictures" / name for name in steps]
    first, last = (np.load(steps[i])["generated images"] for i in (0, 2))
    assert first.shape == last.shape == (3, 2, 1, 28, 28)
    assert (first != last).any()
    assert len(np.unique(first.reshape(6, -1), axis=0)) == 6  # each of its own noise
    a, b = (read_table(folder / "steps.csv") for folder in (without, having))
    numbers = [name for name in a if not name.endswith("_ms")]
    assert {"loss_discriminator", "loss_generator", "gradient_norm_generator"} <= set(numbers)
    for name in numbers:
        assert a[name].tolist() == b[name].tolist(), name
    weights = [load_file(folder / "weights.safetensors") for folder in (without, having)]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name
    for table in ("validation.csv", "confusion.csv"):
        assert (without / table).read_text() == (having / table).read_text()


def test_impossible_pictures_are_noted(tmp_path: Path, notes: pytest.LogCaptureFixture) -> None:
    own = {"runs_dir": str(tmp_path / "runs"), "cache_dir": str(tmp_path / "cache")}
    run(RunContext(configure("protonet", pictures=True, train_way=3, **SMALL, **own)))
    (line,) = [line for line in notes.messages if line.startswith("--pictures")]
    assert re.fullmatch(r"--pictures: method 'protonet' of fewshot-bench .* generates none", line)


def test_without_validation_classes_they_are_of_test_tasks(tmp_path: Path) -> None:
    own = {"runs_dir": str(tmp_path / "runs"), "cache_dir": str(tmp_path / "cache")}
    parts = prepare(RunContext(configure("metagan", **SMALL, **own)))
    with logged() as lines:
        pictures = start_pictures(parts.method, None, parts.test, tmp_path)
    assert pictures is not None
    assert lines == ["--pictures: without validation classes, they are of test tasks"]
    drawn = np.load(tmp_path / "pictures/task.npz")
    first = parts.test.batch(range(1))
    assert drawn["class_ids"].tolist() == first.class_ids[0].tolist()


def test_without_validation_classes_there_are_pictures_before_and_after(tmp_path: Path) -> None:
    own = {"runs_dir": str(tmp_path / "runs"), "cache_dir": str(tmp_path / "cache")}
    settings = SMALL | own | {"validation_classes": 0, "steps": 3}
    record = fewshot_bench.run("metagan", pictures=True, **settings)
    kept = (tmp_path / "runs" / record["id"] / "pictures").glob("step-*.npz")
    assert sorted(path.name for path in kept) == ["step-00000000.npz", "step-00000003.npz"]
