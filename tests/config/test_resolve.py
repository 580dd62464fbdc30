"""Configurations: signature defaults, then the preset, then the user."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fewshot_bench.config.resolve import configure, with_changes
from fewshot_bench.config.schema import SETTINGS, RunConfig
from fewshot_bench.errors import ConfigError, UnknownName
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.runs.evaluate import kept_options

METHOD = """
from fewshot_bench import Method, Preset, hookimpl

@hookimpl
def register_methods():
    return {"settled": "fake_settled:Settled", "unsettled": "fake_settled:Unsettled"}

class Settled(Method):
    def __init__(self, task, backbone=None, *, rate: float = 0.5, decay: float = 0.25,
                 momentum: float = 0.125):
        super().__init__(task, backbone)

    presets = {
        "quick": Preset({"rate": 2, "decay": 3, "steps": 70, "task_batch": 9,
                         "backbone_channels": 16, "train_way": lambda task: 4 * task.way}),
        "paper": [Preset({"rate": 7}, family="characters")],
    }

class Unsettled(Settled):
    presets = {"quick": Preset({"no_such_thing": 1})}
"""


@pytest.fixture
def settled(fake_distribution: Callable[..., Path]) -> str:
    """The name of a method whose preset sets options of every kind."""
    fake_distribution("fake-settled", "fake_settled", METHOD)
    return "settled"


@pytest.mark.parametrize("backbone", ["conv4", "nope"])
def test_a_method_without_a_network_takes_no_backbone(backbone: str) -> None:
    with pytest.raises(ConfigError, match=r"--backbone: nearest-centroid .* leave it out"):
        configure("nearest-centroid", backbone=backbone)
    # What a record holds is no choice of anybody's.
    assert with_changes(configure("nearest-centroid"), Registry.discover(), {"way": 3}).way == 3


def test_the_user_comes_before_the_preset_before_the_default(settled: str) -> None:
    config = configure(settled, decay=11, steps="80")
    assert config.method_options == {"rate": 2.0, "decay": 11.0, "momentum": 0.125}
    assert config.backbone_options["backbone_channels"] == 16
    assert (config.steps, config.task_batch, config.episodes) == (
        80,
        9,
        SETTINGS["episodes"].default,
    )
    expected = {
        "rate": "preset",
        "decay": "user",
        "momentum": "default",
        "steps": "user",
        "task_batch": "preset",
        "episodes": "default",
        "backbone_channels": "preset",
        "train_classes": "default",
    }
    assert {name: config.sources[name] for name in expected} == expected


def test_every_setting_has_a_source(settled: str) -> None:
    config = configure(settled)
    groups = (config.method_options, config.backbone_options, config.dataset_options)
    names = {name for name, option in SETTINGS.items() if not option.option}.union(*groups)
    assert set(config.sources) == names


def test_a_training_task_is_the_evaluations_where_nothing_is_said(settled: str) -> None:
    config = configure(settled, way=3, shot=2, query=7, train_shot=4)
    assert (config.train_way, config.train_shot, config.train_query) == (12, 4, 7)
    assert (config.way, config.shot, config.query) == (3, 2, 7)


def test_a_preset_of_another_name_and_data_set(settled: str) -> None:
    assert configure(settled, preset="paper").method_options["rate"] == 7
    with pytest.raises(UnknownName, match=r"no preset named 'paper'.*Known: quick"):
        configure(settled, preset="paper", dataset="mini-imagenet")


def test_a_preset_that_sets_what_is_no_option(settled: str) -> None:
    with pytest.raises(ConfigError, match="a preset of unsettled sets 'no_such_thing'"):
        configure("unsettled")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "protnet"}, "no method named 'protnet'; did you mean 'protonet'"),
        ({"dataset": "omniglott"}, "no dataset named 'omniglott'; did you mean 'omniglot'"),
        ({"backbone": "convv4"}, "no backbone named 'convv4'; did you mean 'conv4'"),
        ({"preset": "papr"}, "no preset named 'papr'; did you mean 'paper'"),
        ({"sampling": "closd"}, "no sampler named 'closd'; did you mean 'closed'"),
        ({"halve_evry": 3}, "no option named 'halve_evry'; did you mean 'halve_every'"),
        ({"metric": ["acuracy"]}, "no metric named 'acuracy'; did you mean 'accuracy'"),
        ({"with_": "nobody"}, "no observer named 'nobody'"),
        ({"way": 1}, "--way: expected an integer >= 2, got 1"),
        ({"shot": 0}, "--shot: expected an integer >= 1, got 0"),
        ({"episodes": -1}, "--episodes: expected an integer >= 1, got -1"),
        ({"level": 1.0}, "--level: expected a number > 0 and < 1, got 1.0"),
        ({"pixels": "bytes"}, "--pixels: expected one of unit, signed, got 'bytes'"),
        ({"steps": "many"}, "--steps: expected an integer >= 1, got 'many'"),
        ({"checkpoint_every": "often"}, "--checkpoint-every: expected .*10m.*, got 'often'"),
        ({"init": "nowhere"}, "--init nowhere: there is no such file or folder"),
    ],
)
def test_an_impossible_value_is_refused(settings: dict[str, Any], message: str) -> None:
    method = settings.pop("method", "protonet")
    with pytest.raises(ConfigError, match=message):
        configure(method, **settings)


def test_a_folder_keeps_its_path_and_has_its_own_options() -> None:
    config = configure("nearest-centroid", dataset="folder:/some/where", image_size=32)
    assert config.dataset == "folder:/some/where"
    assert config.dataset_options["image_size"] == 32
    assert "path" not in config.dataset_options
    assert config.backbone_options == {}


def test_a_configuration_survives_json() -> None:
    config = configure("metagan", metric="accuracy", betas=(0.1, 0.2))
    assert config.metrics == ("accuracy",)
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_a_configuration_of_another_version_is_refused(change: str) -> None:
    values = configure("nearest-centroid").to_dict()
    if change == "missing":
        del values["method_options"]
    else:
        values["method_option"] = 1
    with pytest.raises(ConfigError, match=r"unknown or missing 'method_options?'"):
        RunConfig.from_dict(values)


def test_a_changed_configuration_keeps_the_rest() -> None:
    config = configure("protonet", shot=1, halve_every=3, test_classes=30, seed=4)
    changed = with_changes(config, Registry.discover(), {"shot": 2})
    assert changed.shot == 2
    assert changed.method_options == config.method_options
    assert changed.dataset_options == config.dataset_options
    names = ("train_way", "train_shot", "steps", "seed", "way")
    assert [getattr(changed, n) for n in names] == [getattr(config, n) for n in names]


def on_other_data(config: RunConfig, dataset: str) -> RunConfig:
    """The configuration with other data."""
    registry, changes = Registry.discover(), {"dataset": dataset}
    options = kept_options(registry, config.dataset, config.dataset_options, changes)
    return with_changes(config, registry, changes, options)


def test_another_data_set_comes_with_its_own_defaults_but_for_what_images_look_like() -> None:
    config = configure("protonet", image_size=20, test_classes=30)
    changed = on_other_data(config, "omniglot")
    own = configure("protonet", dataset="omniglot").dataset_options
    assert changed.dataset_options == own | {"image_size": 20}
    assert changed.method_options == config.method_options


def test_a_preset_that_the_other_data_set_lacks_is_no_obstacle(settled: str) -> None:
    config = configure(settled, preset="paper", steps=12)
    changed = on_other_data(config, "mini-imagenet")
    assert (changed.dataset, changed.steps, changed.preset) == ("mini-imagenet", 12, "paper")
    assert changed.method_options == config.method_options


def test_the_quick_preset_says_that_it_is_not_the_papers() -> None:
    assert "not the paper's schedule" in configure("protonet").notes[0]
    assert configure("protonet", preset="paper").notes == ()
