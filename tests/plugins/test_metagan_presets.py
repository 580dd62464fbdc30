"""Presets of MetaGAN: which exist, that every option in them does, and what they promise."""

from __future__ import annotations

from typing import Any

import pytest
from fsb_metagan.metagan import MetaGAN

from fewshot_bench.config.options import load
from fewshot_bench.config.resolve import configure
from fewshot_bench.episode import Task
from fewshot_bench.errors import ConfigError
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.method import preset_settings

CASES = (
    ("quick", "glyphs", 5),
    ("quick", "omniglot", 5),
    ("quick", "omniglot", 20),
    ("tutorial", "omniglot", 5),
    ("tutorial-small", "omniglot", 5),
    ("paper", "omniglot", 5),
    ("paper", "omniglot", 20),
    ("paper-relationnet", "omniglot", 5),
    ("paper-relationnet", "omniglot", 20),
    ("paper", "mini-imagenet", 5),
    ("paper-relationnet", "mini-imagenet", 5),
    ("paper", "folder:pictures", 7),
)
WEIGHTS = (
    "outer_supervised_weight",
    "outer_real_weight",
    "outer_fake_weight",
    "inner_supervised_weight",
    "inner_real_weight",
    "inner_fake_weight",
    "generator_weight",
)


def options(name: str, dataset: str, way: int) -> dict[str, Any]:
    config = configure("metagan", preset=name, dataset=dataset, way=way, shot=5)
    return vars(config) | config.method_options | config.dataset_options


@pytest.mark.parametrize(("name", "dataset", "way"), CASES)
def test_every_term_is_active_in_every_preset(name: str, dataset: str, way: int) -> None:
    chosen = options(name, dataset, way)
    assert all(chosen[weight] > 0 for weight in WEIGHTS)
    assert chosen["inner_gan"]
    assert chosen["inner_test_fakes"]
    assert chosen["base"] == ("relationnet" if name.endswith("relationnet") else "maml")
    assert sum(chosen[weight] for weight in WEIGHTS) == 7 or name == "quick"


def test_the_paper_plays_the_game_as_printed() -> None:
    chosen = options("paper", "omniglot", 5)
    assert (chosen["update"], chosen["inner_through_fakes"]) == ("alternating", True)
    assert (chosen["head"], chosen["generator_loss"]) == ("logsumexp", "non_saturating")
    assert (chosen["generator_network"], chosen["encoder_network"]) == ("paper", "paper")
    assert (chosen["lr"], chosen["betas"], chosen["halve_every"]) == (1e-3, (0.5, 0.9), 10_000)
    assert chosen["task_batch"] == 16
    assert not chosen["base_first_order"]
    assert options("paper", "omniglot", 20)["task_batch"] == 8


def test_over_a_relation_network_it_is_one_task_a_step() -> None:
    chosen = options("paper-relationnet", "omniglot", 20)
    assert (chosen["task_batch"], chosen["train_query"], chosen["halve_every"]) == (1, 5, 10_000)
    assert chosen["backbone"] == "conv4-relation"
    assert chosen["backbone_options"]["backbone_statistics"] == "batch"


def test_the_tutorials_settings() -> None:
    chosen = options("tutorial", "omniglot", 5)
    assert (chosen["steps"], chosen["task_batch"], chosen["reduction"]) == (600, 32, "sum")
    assert (chosen["resize"], chosen["pixels"], chosen["validation"]) == (
        "bilinear",
        "signed",
        "none",
    )
    assert (chosen["base_inner_lr"], chosen["base_inner_steps"]) == (0.1, 5)
    assert chosen["base_first_order"]
    assert (chosen["update"], chosen["generator_loss"]) == ("joint", "feature_matching")
    assert chosen["eps"] == 1e-7
    assert (chosen["sampling"], chosen["query"]) == ("in-order", 15)
    assert (chosen["order"], chosen["ink"]) == ("hashed", "black")
    assert chosen["backbone_options"]["backbone_framework"] == "keras"


def test_the_small_tutorial_differs_in_its_networks_alone() -> None:
    whole, small = (options(name, "omniglot", 5) for name in ("tutorial", "tutorial-small"))
    names = {name for name in whole if whole[name] != small[name]}
    assert names == {"preset", "generator_network", "encoder_network", "method_options"}


def test_the_mended_tutorial_names_what_it_changes() -> None:
    small, corrected = (
        options(name, "omniglot", 5) for name in ("tutorial-small", "tutorial-corrected")
    )
    changed = {name for name in set(small) & set(corrected) if small[name] != corrected[name]}
    assert changed - {"preset", "method_options", "dataset_options", "sources"} == {
        "outer_real_weight", "outer_fake_weight", "generator_weight",
        "generator_fakes_per_class", "base", "sampling",
    }  # fmt: skip
    assert (corrected["steps"], corrected["task_batch"]) == (600, 32)


@pytest.mark.parametrize(
    ("name", "dataset", "way", "shot"),
    [
        ("tutorial", "glyphs", 5, 5),
        ("tutorial", "omniglot", 5, 1),
        ("paper", "glyphs", 5, 5),
        ("paper", "omniglot", 7, 5),
        ("x", "glyphs", 5, 5),
    ],
)
def test_presets_that_do_not_exist(name: str, dataset: str, way: int, shot: int) -> None:
    data = load(Registry.discover(), "datasets", dataset)
    assert preset_settings(MetaGAN, name, data, Task(way, shot)) is None
    elsewhere = f".*'{name}' exists for another --dataset" if name != "x" else "[^']*$"
    with pytest.raises(ConfigError, match=f"no preset named '{name}'.*quick{elsewhere}"):
        configure("metagan", preset=name, dataset=dataset, way=way, shot=shot)
