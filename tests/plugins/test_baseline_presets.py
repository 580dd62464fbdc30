"""Every preset of the baselines is one that a run accepts; quick ones cost about the same."""

from __future__ import annotations

from itertools import product

import pytest
from fsb_glyphs.glyphs import Glyphs
from fsb_maml.maml import MAML

from fewshot_bench.config.resolve import configure
from fewshot_bench.episode import Task
from fewshot_bench.errors import ConfigError
from fewshot_bench.method import preset_settings

DATASETS = ("omniglot", "glyphs", "folder:pictures")
TASKS = ((5, 1), (5, 5), (20, 1), (20, 5))


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize(
    ("method", "preset"),
    [
        *product(("maml", "protonet", "relationnet", "soft-kmeans"), ("quick", "paper")),
        ("nearest-centroid", "quick"),
    ],
)
def test_a_run_accepts_it(method: str, preset: str, dataset: str) -> None:
    for way, shot in TASKS:
        config = configure(method, preset=preset, dataset=dataset, way=way, shot=shot)
        assert config.train_shot == shot  # the queries: tests/honesty/test_protocols.py
        many = method in ("protonet", "soft-kmeans")
        assert config.train_way >= way if many else config.train_way == way
        assert config.steps >= 1


@pytest.mark.parametrize(
    "method", ["maml", "protonet", "relationnet", "soft-kmeans", "nearest-centroid"]
)
def test_a_missing_preset_is_told(method: str) -> None:
    with pytest.raises(ConfigError, match="no preset named 'tutorial'"):
        configure(method, preset="tutorial", dataset="omniglot")


@pytest.mark.parametrize(
    ("method", "preset", "split", "turned"),
    [
        ("maml", "paper", "random", True),
        ("relationnet", "paper", "random", True),
        ("metagan", "paper", "random", True),
        ("metagan", "paper-relationnet", "random", True),
        ("protonet", "paper", "vinyals", None),  # whose lists are of turned characters
        ("maml", "quick", "official", None),
    ],
)
def test_a_paper_has_its_own_split(
    method: str, preset: str, split: str, turned: bool | None
) -> None:
    options = configure(method, preset=preset, dataset="omniglot", way=5, shot=1).dataset_options
    assert (options["split"], options["test_rotations"]) == (split, turned)


def test_quick_maml_passes_about_as_many_images_whatever_the_task() -> None:
    def passes(way: int, shot: int) -> int:
        preset = preset_settings(MAML, "quick", Glyphs, Task(way, shot))
        assert preset is not None
        images = way * (preset["inner_steps"] * shot + preset["train_query"])
        return images * preset["steps"]

    assert passes(5, 5) == 300_000
    for way, shot in TASKS:
        assert 200_000 <= passes(way, shot) <= 300_000
