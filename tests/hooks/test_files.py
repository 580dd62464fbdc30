"""Plugins of a single file: imported when their path is typed, and at no other time."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

import fewshot_bench
from fewshot_bench.config.options import split_dataset
from fewshot_bench.errors import ConfigError, PluginError
from fewshot_bench.hooks import single_file as files
from fewshot_bench.hooks.registry import Registry
from tests.command_line import Process

SOURCE = """
import math
from typing import Annotated

import torch
from torch import nn

from fewshot_bench import Method


class Mine(Method):
    \"\"\"Class means on pixels.\"\"\"

    wants_backbone = False

    def __init__(self, task, backbone=None, *, scale: Annotated[float, "of the logits"] = 1.0):
        super().__init__(task)
        self.scale = scale

    def adapt(self, support):
        return support.images.flatten(3).mean(2)

    def predict(self, state, query):
        return -self.scale * torch.cdist(query.flatten(2), state)


def thin(image_shape, *, features: int = 4):
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(image_shape), features), nn.Unflatten(1, (features, 1, 1))
    )
    net.out_shape = (features, 1, 1)
    return net


def half(logits, target):
    return torch.full((len(logits),), 0.5)
"""
SMALL: dict[str, Any] = {
    "train_classes": 8, "validation_classes": 0, "test_classes": 8, "way": 3, "shot": 1,
    "query": 2, "episodes": 4, "steps": 1, "task_batch": 2, "train_way": 3,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the file in it."""
    (tmp_path / "mine.py").write_text(SOURCE, "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_file_runs_and_its_run_is_evaluated_from_anywhere(
    folder: Path, data_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SMALL | {"runs_dir": str(folder / "runs"), "cache_dir": str(data_cache)}
    record = fewshot_bench.run("./mine.py:Mine", scale=2.0, metric="./mine.py:half", **settings)
    assert record["method"] == "mine.py:Mine"
    assert record["plugin"]["distribution"] == "file"
    assert record["plugin"]["version"].startswith("sha256:")
    assert record["config"]["method_options"] == {"scale": 2.0}
    assert record["test"]["metrics"][f"{folder}/mine.py:half"]["mean"] == 0.5
    assert record["id"].startswith("mine-py-mine-glyphs-3w1s")
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    with pytest.raises(ConfigError, match=r"names code in a file, .*mine\.py.*--trust-code"):
        fewshot_bench.evaluate(folder / "runs" / record["id"])
    again = fewshot_bench.evaluate(folder / "runs" / record["id"], trust_code=True)
    assert again["test"]["accuracy"] == record["test"]["accuracy"]


def test_another_content_is_another_version(folder: Path) -> None:
    first = Registry.discover().resolve("methods", "./mine.py:Mine")
    assert first.load().__doc__ == "Class means on pixels."
    (folder / "mine.py").write_text(SOURCE.replace("Class means", "Means"), "utf-8")
    second = Registry.discover().resolve("methods", "mine.py:Mine")
    assert second.load().__doc__ == "Means on pixels."
    assert first.version != second.version


def test_a_backbone_may_stand_in_a_file(folder: Path, data_cache: Path) -> None:
    settings = SMALL | {"runs_dir": str(folder / "runs"), "cache_dir": str(data_cache)}
    record = fewshot_bench.run(
        "protonet", backbone="./mine.py:thin", backbone_features=3, validate_every=0, **settings
    )
    assert record["config"]["backbone"] == f"{folder}/mine.py:thin"
    assert record["config"]["backbone_options"] == {"backbone_features": 3}


def test_a_data_set_in_a_file_may_take_a_path(folder: Path) -> None:
    registry = Registry.discover()
    assert split_dataset(registry, "./mine.py:Mine") == ("./mine.py:Mine", None)
    assert split_dataset(registry, "./mine.py:Mine:/a:b") == ("./mine.py:Mine", "/a:b")


@pytest.mark.parametrize(
    ("typed", "error", "message"),
    [
        ("./mine.py", ConfigError, "a class or function has to follow, as in ./mine.py:Mine"),
        ("./mine.py:", ConfigError, "a class or function has to follow"),
        ("./their.py:Mine", ConfigError, "there is no file './their.py'"),
        ("./mine.py:Mien", PluginError, "there is no 'Mien' in '.*mine.py'; did you mean 'Mine'"),
        ("./bad.py:Mine", PluginError, "bad.py', line 1 cannot be imported: SyntaxError"),
        ("./bad.py", ConfigError, "as in ./bad.py:MyMethod"),
        ("./raises.py:Mine", PluginError, "raises.py' cannot be imported: ZeroDivisionError"),
    ],
)
def test_what_is_typed_wrong(typed: str, error: type, message: str, folder: Path) -> None:
    (folder / "bad.py").write_text("def (:", "utf-8")
    (folder / "raises.py").write_text("1 / 0", "utf-8")
    with pytest.raises(error, match=message):
        Registry.discover().resolve("methods", typed).load()
    assert not [name for name in sys.modules if name.startswith("raises")]


def test_no_file_is_read_that_was_not_typed(folder: Path, fsb_process: Process) -> None:
    (folder / "maml.py").write_text("raise SystemExit('read')", "utf-8")
    answer = fsb_process("list", "methods", at=folder, PYTHONSAFEPATH="1").succeeded()
    assert "mine" not in answer.out


def test_an_edit_of_the_same_size_and_second_is_seen(tmp_path: Path) -> None:
    """Python's cache of compiled files would run the old content under the new one's digest."""
    path = tmp_path / "own.py"
    for number in (1, 2):
        path.write_text(f"NUMBER = {number}\n", "utf-8")
        os.utime(path, (1_000_000, 1_000_000))
        assert vars(files.load(path))["NUMBER"] == number
