"""Plugins whose objects break the contract: the error names the plugin, and only who named it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fewshot_bench.config.options import (
    Option,
    dataset_options,
    load,
    split_dataset,
)
from fewshot_bench.config.resolve import configure
from fewshot_bench.episode import Task
from fewshot_bench.errors import ConfigError, PluginError
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.runs.build import build_backbone, build_dataset, build_method

SOURCE = """
from fewshot_bench import Dataset, Method, Preset, hookimpl

@hookimpl
def register_methods():
    names = ["Taken", "Reserved", "Sized", "Presets", "Listed", "Failing"]
    return {n.lower(): "fake_odd:" + n for n in names} | {"function": "json:loads"}

@hookimpl
def register_datasets():
    return {"nothing": "json:loads", "pile": "fake_odd:Pile", "heap": "fake_odd:Heap"}

@hookimpl
def register_backbones():
    return {"thin": "fake_odd:thin"}

@hookimpl
def register_samplers():
    return {"drawn": "json:loads"}

@hookimpl
def register_observers():
    return {"watcher": "json:loads"}

@hookimpl
def register_metrics():
    return {"number": "math:pi"}

class Taken(Method):
    def __init__(self, task, backbone=None, *, steps: int = 3):
        super().__init__(task, backbone)

class Reserved(Method):
    def __init__(self, task, backbone=None, *, json: bool = False):
        super().__init__(task, backbone)

class Sized(Method):
    def __init__(self, task, backbone=None, *, image_size: int = 3):
        super().__init__(task, backbone)

class Presets(Method):
    presets = {"quick": Preset({"steps": lambda task: task.no_such_thing})}

class Listed(Method):
    presets = {"quick": ["steps", 3]}

class Failing(Method):
    def __init__(self, task, backbone=None, *, rate: float = 0.5):
        raise ValueError(f"rate {rate} is odd")

class Pile(Dataset):
    def __init__(self, *, path: str | None = None):
        self.path = path

class Heap(Dataset):
    def __init__(self):
        raise KeyError("heap")

def thin(image_shape):
    raise ValueError(f"{image_shape} is too small")
"""


@pytest.fixture
def registry(fake_distribution: Callable[..., Path]) -> Registry:
    """What is installed, and a distribution of odd things."""
    fake_distribution("fake-odd", "fake_odd", SOURCE)
    found = Registry.discover()
    assert not any(plugin.error for plugin in found.plugins)
    return found


@pytest.mark.parametrize(
    ("kind", "name", "wanted"),
    [
        ("methods", "function", "of type function; expected a subclass of fewshot_bench.Method"),
        ("datasets", "nothing", "of type function; expected a subclass of fewshot_bench.Dataset"),
        ("samplers", "drawn", "a subclass of fewshot_bench.Sampler"),
        ("observers", "watcher", "of type function and implements no lifecycle hook"),
        ("metrics", "number", "of type float; expected a function or class"),
    ],
)
def test_an_object_of_the_wrong_type(kind: str, name: str, wanted: str, registry: Registry) -> None:
    with pytest.raises(PluginError, match=f"{kind[:-1]} '{name}' of fake-odd 1.0 is .*{wanted}"):
        load(registry, kind, name)


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        (
            "taken",
            {},
            "--steps of method 'taken' of fake-odd 1.0 clashes with that of 'fsb run'",
        ),
        (
            "reserved",
            {},
            "--json of method 'reserved' of fake-odd 1.0 clashes",
        ),
        (
            "sized",
            {},
            "--image-size of the data set clashes with that of method 'sized' of fake-odd",
        ),
        ("presets", {}, r"method 'presets' of fake-odd 1.0: preset 'quick': .*no_such_thing"),
        (
            "listed",
            {},
            r"method 'listed' of fake-odd 1.0: .*presets\['quick'\].*expected .*Preset.*found list",
        ),
        ("function", {}, "method 'function' of fake-odd"),
        ("nearest-centroid", {"dataset": "nothing"}, "dataset 'nothing' of fake-odd"),
        ("nearest-centroid", {"sampling": "drawn"}, "sampler 'drawn' of fake-odd"),
        ("nearest-centroid", {"with_": "watcher"}, "observer 'watcher' of fake-odd"),
        ("nearest-centroid", {"metric": "number"}, "metric 'number' of fake-odd"),
    ],
)
def test_a_configuration_that_names_it(
    method: str, settings: dict[str, Any], message: str, registry: Registry
) -> None:
    assert configure("nearest-centroid", registry).method == "nearest-centroid"
    with pytest.raises(PluginError, match=message):
        configure(method, registry, **settings)


def test_what_a_constructor_raises_names_the_plugin(registry: Registry) -> None:
    with pytest.raises(PluginError, match=r"'failing' of fake-odd .*ValueError: rate 0.5 is odd"):
        build_method(registry, "failing", {"rate": 0.5}, Task(5, 1, 1), None)
    with pytest.raises(PluginError, match=r"'thin' of fake-odd .*\(1, 2, 2\) is too small"):
        build_backbone(registry, "thin", {}, (1, 2, 2))
    with pytest.raises(PluginError, match=r"'heap' of fake-odd .*KeyError"):
        build_dataset(registry, "heap", {})


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("pile:/a", ("pile", "/a")),
        ("pile:C:/a", ("pile", "C:/a")),
        ("fake-odd:pile", ("fake-odd:pile", None)),
        ("fake_odd:pile:/a:b", ("fake_odd:pile", "/a:b")),
        ("other:pile:/a", ("other:pile:/a", None)),
    ],
)
def test_distribution_name_and_path(
    typed: str, expected: tuple[str, str | None], registry: Registry
) -> None:
    assert split_dataset(registry, typed) == expected
    if expected[0] != typed or typed == "fake-odd:pile":
        dataset: Any = build_dataset(registry, typed, {})
        assert dataset.path == expected[1]


def test_a_data_set_that_takes_no_path(registry: Registry) -> None:
    with pytest.raises(ConfigError, match="'glyphs' takes nothing after a colon"):
        dataset_options(registry, "glyphs:/somewhere")


@pytest.mark.parametrize("value", ["nan", "inf", float("-inf"), 10**400])
def test_a_number_is_finite(value: Any) -> None:
    with pytest.raises(ConfigError, match="--rate: expected a number"):
        Option("rate", float, 0.5).check(value)


def test_one_distribution_offers_a_name_once(fake_distribution: Callable[..., Path]) -> None:
    source = "from fewshot_bench import hookimpl\n@hookimpl\n"
    source += "def register_methods():\n    return {'good': 'json:loads'}\n"
    site = fake_distribution("fake-good", "fake_good", source)
    (site / "fake_more.py").write_text(source, "utf-8")
    with (site / "fake_good-1.0.dist-info" / "entry_points.txt").open("a", encoding="utf-8") as f:
        f.write("more = fake_more\nattribute = json:loads\n")
    rows = {plugin.name: plugin for plugin in Registry.discover().plugins}
    assert rows["fake_good"].status == "ok"
    assert "another plugin of fake-good offers too" in (rows["more"].error or "")
    assert "has to name a module" in (rows["attribute"].error or "")
    assert Registry.discover().resolve("methods", "fake-good:good").target == "json:loads"


WATCHED = """
from fewshot_bench import hookimpl
import torch

@hookimpl
def register_observers():
    return {"bad-watcher": "fake_watched:Bad"}

@hookimpl
def register_metrics():
    return {n: "fake_watched:" + n for n in ("raises", "scalar", "infinite")}

@hookimpl
def register_methods():
    return {"lazy": "fake_watched_method:Lazy"}

class Bad:
    @hookimpl
    def run_started(self, config):
        raise RuntimeError("no desk")

def raises(logits, target):
    raise KeyError("top")

def scalar(logits, target):
    return logits.mean()

def infinite(logits, target):
    return torch.full((len(logits),), torch.inf)
"""
LAZY = """
from fewshot_bench import Method

class Lazy(Method):
    wants_backbone = False
"""


def test_what_runs_into_trouble_is_named_and_leaves_nothing(fake_distribution, tmp_path) -> None:
    import fewshot_bench

    site = fake_distribution("fake-watched", "fake_watched", WATCHED)
    (site / "fake_watched_method.py").write_text(LAZY, "utf-8")
    small: dict[str, Any] = {
        "train_classes": 6, "validation_classes": 0, "test_classes": 6, "way": 3, "shot": 1,
        "query": 2, "episodes": 4, "runs_dir": str(tmp_path / "runs"),
        "cache_dir": str(tmp_path / "cache"),
    }  # fmt: skip
    for method, more, message in (
        (
            "nearest-centroid",
            {"with_": "bad-watcher"},
            r"run_started\(\) of .*bad-watcher.* raised",
        ),
        (
            "nearest-centroid",
            {"metric": "raises"},
            r"metric 'raises' of fake-\S+ 1.0 raised KeyError",
        ),
        (
            "nearest-centroid",
            {"metric": "scalar"},
            r"metric 'scalar' of fake-\S+ 1.0: .* got shape",
        ),
        (
            "lazy",
            {},
            r"method 'lazy' of fake-\S+ 1.0: Lazy.adapt\(\) raised NotImplementedError: no message",
        ),
    ):
        with pytest.raises(PluginError, match=message):
            fewshot_bench.run(method, **small, **more)
        assert not list((tmp_path / "runs").glob("*"))
    record = fewshot_bench.run("nearest-centroid", **small, metric="infinite")
    infinite = record["test"]["metrics"]["infinite"]
    assert (infinite["mean"], infinite["half_width"]) == (None, None)
    assert record["notes"][-1].startswith("Glyphs")  # nothing of a preset: nothing was trained
