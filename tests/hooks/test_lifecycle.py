"""Lifecycle hooks: whom a run calls, with what, and in which order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import fewshot_bench
from fewshot_bench import hookimpl
from fewshot_bench.errors import PluginError
from fewshot_bench.hooks.lifecycle import RunHooks
from fewshot_bench.hooks.registry import LIFECYCLE, Registry
from fewshot_bench.sampling.base import Indices

SMALL: dict[str, Any] = {
    "train_classes": 8, "validation_classes": 8, "test_classes": 8, "way": 3, "shot": 1,
    "query": 2, "train_query": 2, "episodes": 40, "validation_episodes": 5, "steps": 2,
    "validate_every": 1, "task_batch": 2, "train_way": 3, "device": "cpu",
    "checkpoint_every": "1",
}  # fmt: skip
# In a hook module: every lifecycle hook writes its name and its arguments.
LOGGING = """
import json
from fewshot_bench import hookimpl
calls = []
def _plain(value):
    return value.tolist() if hasattr(value, "tolist") else str(value)
""" + "".join(
    f"""
@hookimpl
def {name}({", ".join(arguments)}):
    calls.append(["{name}", json.loads(json.dumps([{", ".join(arguments)}], default=_plain))])
"""
    for name, arguments in {
        "run_started": ("config", "folder", "resumed_from"),
        "episodes_sampled": ("split", "ids", "class_ids", "indices"),
        "train_logged": ("step", "metrics"),
        "evaluation_started": ("split", "episodes", "step"),
        "episodes_scored": ("split", "ids", "scores", "metrics", "confusion"),
        "evaluation_finished": ("split", "step", "scores", "metrics"),
        "checkpoint_saved": ("step", "path"),
        "run_finished": ("record",),
    }.items()
)


def run(tmp_path: Path, cache: Path, method: str = "protonet", **more: Any) -> dict[str, Any]:
    settings = SMALL | {"runs_dir": str(tmp_path / "runs"), "cache_dir": str(cache)} | more
    settings |= {"backbone_channels": 4} if method == "protonet" else {}
    return fewshot_bench.run(method, **settings)


def calls_of(module: str) -> list[Any]:
    import importlib

    return importlib.import_module(module).calls  # type: ignore[no-any-return]


@pytest.fixture
def log(fake_distribution: Callable[..., Path]) -> str:
    """A plugin whose module has every lifecycle hook, and registers itself as an observer."""
    register = "@hookimpl\ndef register_observers():\n    return {'log': __name__}\n"
    fake_distribution("fake-log", "fake_log", LOGGING + register)
    return "fake_log"


def test_a_run_calls_every_hook_in_order_with_plain_data(
    log: str, tmp_path: Path, data_cache: Path
) -> None:
    record = run(tmp_path, data_cache, with_="log", metric="cross-entropy")
    calls = calls_of(log)
    assert {name for name, _ in calls} == set(LIFECYCLE)
    step = ["train_logged", "episodes_sampled", "evaluation_started", "episodes_sampled",
            "episodes_scored", "evaluation_finished", "checkpoint_saved"]  # fmt: skip
    test = ["evaluation_started", *2 * ["episodes_sampled", "episodes_scored"],
            "evaluation_finished"]  # fmt: skip
    assert [name for name, _ in calls] == ["run_started", *step, *step, *test, "run_finished"]
    given = {name: arguments for name, arguments in calls}  # the last of each
    assert given["run_started"][0] == json.loads(json.dumps(record["config"]))
    assert Path(given["run_started"][1]).name == record["id"]
    sampled = [arguments for name, arguments in calls if name == "episodes_sampled"]
    assert [(split, ids) for split, ids, *_ in sampled if split == "train"] == [
        ("train", [0, 1]),
        ("train", [2, 3]),
    ]
    assert [len(ids) for split, ids, *_ in sampled if split == "test"] == [32, 8]
    assert all(np.shape(class_ids) == (len(ids), 3) for _, ids, class_ids, _ in sampled)
    assert np.shape(sampled[-1][3]["support"]) == (8, 3, 1)
    split, at, scores, metrics = given["evaluation_finished"]
    assert (split, at, len(scores), list(metrics)) == ("test", 2, 40, ["cross-entropy"])
    assert np.mean(scores) == record["test"]["accuracy"]
    assert np.sum(given["episodes_scored"][4]) == 8 * 6  # queries
    assert given["run_finished"] == [json.loads(json.dumps(record))]


def test_a_plugin_that_is_not_named_is_not_called_and_changes_no_number(
    fake_distribution: Callable[..., Path], tmp_path: Path, data_cache: Path
) -> None:
    """Rule 1 of the design."""
    before = run(tmp_path, data_cache)
    site = fake_distribution("fake-log", "fake_log", LOGGING)
    (info,) = (p for p in Registry.discover().plugins if p.distribution == "fake-log")
    assert (info.status, info.kinds) == ("ok", {})
    assert "lifecycle hooks are called never" in info.note
    after = run(tmp_path, data_cache)
    assert calls_of("fake_log") == []
    assert (site / "fake_log.py").exists()
    numbers = ("config", "episodes_digest", "test", "validation", "weights", "plugins", "inputs")
    assert {n: after[n] for n in numbers} == {n: before[n] for n in numbers}


def test_an_observer_is_built_for_each_run_and_may_be_a_file(
    tmp_path: Path, data_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (
        "from pathlib import Path\nfrom fewshot_bench import hookimpl\n"
        "@hookimpl\ndef run_started(folder):\n    (folder / 'module').touch()\n"
        "class Count:\n"
        "    def __init__(self):\n        self.count = 0\n"
        "    @hookimpl\n    def episodes_scored(self, ids):\n        self.count += len(ids)\n"
        "    @hookimpl\n    def run_finished(self, record):\n"
        "        Path(f'{record[\"id\"]}.txt').write_text(str(self.count))\n"
    )
    (tmp_path / "watch.py").write_text(source, "utf-8")
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        record = run(
            tmp_path, data_cache, "nearest-centroid", with_=["./watch.py:Count", "./watch.py"]
        )
        assert (tmp_path / f"{record['id']}.txt").read_text() == "45"
        assert (tmp_path / "runs" / record["id"] / "module").exists()
        named = [p["name"] for p in record["plugins"] if p["kind"] == "observers"]
        assert named == ["watch.py:Count", "watch.py"]


def test_the_order_is_that_of_the_command_line_and_pluggys_options_change_it() -> None:
    order: list[str] = []

    def observer(name: str, **options: Any) -> Any:
        @hookimpl(**options)
        def train_logged(step: int) -> None:
            order.append(f"{name} {step}")

        return SimpleNamespace(train_logged=train_logged)

    class Around:
        @hookimpl(wrapper=True)
        def train_logged(self) -> Iterator[None]:
            order.append("before")
            yield
            order.append("after")

    observers = {
        "last": observer("last", trylast=True), "a": observer("a"), "around": Around,
        "b": observer("b"), "first": observer("first", tryfirst=True),
    }  # fmt: skip
    RunHooks(observers).train_logged(step=3, metrics={})
    assert order == ["before", "first 3", "a 3", "b 3", "last 3", "after"]


class Base:
    @hookimpl
    def train_logged(self, step: int) -> None:
        if step == type(self).__name__.count("i"):
            raise ValueError("no disk")


class Fine(Base): ...


class Writing(Base): ...


class Wrapping:
    @hookimpl(wrapper=True)
    def train_logged(self) -> Iterator[None]:
        yield
        raise KeyError("key")


@pytest.mark.parametrize(
    ("step", "observers", "message"),
    [
        (1, (Fine, Writing), r"train_logged\(\) of observer Fine raised ValueError: no disk"),
        (2, (Fine, Writing), r"train_logged\(\) of observer Writing raised ValueError: no disk"),
        (2, (Wrapping, Writing), r"train_logged\(\) of observer Writing raised ValueError"),
        (3, (Wrapping, Writing), r"train_logged\(\) of observer Wrapping raised KeyError: 'key'"),
    ],
)
def test_an_error_names_observer_and_hook(step: int, observers: Any, message: str) -> None:
    hooks = RunHooks({f"observer {kind.__name__}": kind for kind in observers})
    with pytest.raises(PluginError, match=message):
        hooks.train_logged(step=step, metrics={})


class Scribbler:
    @hookimpl
    def run_started(self, config: Any) -> None:
        config["method_options"]["lr"] = 9

    @hookimpl
    def episodes_sampled(self, class_ids: Any, indices: Any) -> None:
        class_ids += 9
        indices["support"] += 9

    @hookimpl
    def evaluation_finished(self, scores: Any) -> None:
        scores[:] = 1


def indices() -> Indices:
    images, key = torch.zeros(2, 3, 1, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    return Indices(images, images.flatten(1), images.flatten(1), None, images[..., 0].clone(), key)


def test_observers_get_copies() -> None:
    hooks, config = RunHooks({"it": Scribbler}), {"method_options": {"lr": 1}}
    sampled, scores = indices(), np.zeros(2)
    hooks.run_started(config=config, folder=Path(), resumed_from=0)
    bound = hooks.bind(split="test", step=1)
    bound.sampled(range(2), sampled)
    bound.evaluation_finished(scores=scores, metrics={})
    assert config == {"method_options": {"lr": 1}}
    assert not any(part.any() for part in (sampled.class_ids, sampled.support))
    assert not scores.any()


def test_nothing_is_gathered_where_no_observer_implements_the_hook(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(value: Any) -> Any:
        raise AssertionError(value)

    monkeypatch.setattr("fewshot_bench.hooks.lifecycle._plain", refuse)
    for hooks in (RunHooks(), RunHooks({"it": Fine})):
        assert not hooks.implemented("episodes_sampled")
        hooks.bind(split="test").sampled(range(2), indices())
        hooks.run_finished(record={})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("class It:\n    @hookimpl\n    def run_startd(self): ...\n", "did you mean 'run_started'"),
        (
            "class It:\n    @hookimpl\n    def run_started(self, confg): ...\n",
            "'confg'.*did you mean 'config'",
        ),
        ("class It:\n    def run_started(self): ...\n", "It.run_started lacks @hookimpl"),
        ("class It: ...\n", "is of type type and implements no lifecycle hook"),
        ("It = 3\n", "is of type int and implements no lifecycle hook"),
        (
            "class It:\n    @hookimpl\n    def locate_dataset(self, name): ...\n",
            "implements no lifecycle hook",
        ),
        (
            "class It:\n    def __init__(self, folder): ...\n"
            "    @hookimpl\n    def run_started(self): ...\n",
            "observer 'watch.py:It' raised TypeError",
        ),
    ],
)
def test_a_wrong_observer_is_an_error_before_anything_is_trained(
    source: str, message: str, tmp_path: Path, data_cache: Path
) -> None:
    path = tmp_path / "watch.py"
    path.write_text("from fewshot_bench import hookimpl\n" + source, "utf-8")
    with pytest.raises(PluginError, match=f"observer 'watch.py:It'.*{message}|{message}"):
        run(tmp_path, data_cache, "nearest-centroid", with_=f"{path}:It")
    assert not list((tmp_path / "runs").glob("*"))


def test_a_misspelled_call_of_the_core_is_an_error() -> None:
    with pytest.raises(AttributeError, match="no lifecycle hook 'run_strated'"):
        RunHooks().run_strated()
