"""All built-in plugins pass the conformance suite."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fewshot_bench.hooks.registry import Registry
from fewshot_bench.testing import SUITES
from fewshot_bench.testing.suites import suite

Check = Callable[[], None]
# Their files are not everywhere; tests of their own hold their loading against stand-ins.
NEEDS = {"folder", "omniglot", "mini-imagenet", "cifar-fs", "fc100"}
NAMES = [
    pytest.param(kind, name)
    for kind in SUITES
    for name in Registry.discover().names(kind)
    if name not in NEEDS
]


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_a_built_in_passes_every_check(kind: str, name: str) -> None:
    found = suite(Registry.discover(), name, kind)
    outcomes = found.run()
    assert [(o.id, o.message) for o in outcomes if o.status == "failed"] == []
    assert any(o.status == "passed" for o in outcomes)


@pytest.mark.parametrize(
    ("name", "shape", "only"),
    [
        ("maml", (1, 28, 28), ["beats-chance"]),
        ("maml", (3, 84, 84), ["gradients"]),
        ("protonet", (1, 9, 13), ["gradients"]),
        *(
            pytest.param(name, shape, [], marks=pytest.mark.exhaustive)
            for name in Registry.discover().names("methods")
            for shape in [(1, 28, 28), (1, 20, 30), (3, 84, 84)]
        ),
    ],
)
def test_a_built_in_method_passes_with_images_of_any_size(
    name: str, shape: tuple[int, int, int], only: list[str]
) -> None:
    found = suite(Registry.discover(), name, "methods", image_shapes=[shape])
    outcomes = found.run(only)
    assert [(o.id, o.message) for o in outcomes if o.status == "failed"] == []


@pytest.mark.conformance("maml", first_order=True)
def test_first_order_maml(fsb_check: Check) -> None:
    fsb_check()


@pytest.mark.conformance("soft-kmeans", follow="code", distractors_are="ignored")
def test_soft_k_means_without_distractors_as_its_code_has_it(fsb_check: Check) -> None:
    fsb_check()


@pytest.mark.conformance("soft-kmeans", follow="code", distractors_are="cluster")
def test_soft_k_means_with_a_cluster_as_its_code_has_it(fsb_check: Check) -> None:
    fsb_check()


@pytest.mark.conformance("soft-kmeans", follow="code", distractors_are="masked")
def test_soft_k_means_with_masks_as_its_code_has_it(fsb_check: Check) -> None:
    fsb_check()


@pytest.mark.skipif(not os.environ.get("FSB_DATA"), reason="the data are not here")
def test_omniglot_passes(fsb_data: Path) -> None:
    found = suite(Registry.discover(), "omniglot", data_root=str(fsb_data))
    outcomes = found.run()
    assert [(o.id, o.message) for o in outcomes if o.status == "failed"] == []


def test_a_folder_of_images_passes(tmp_path: Path) -> None:
    from PIL import Image

    for i in range(12):
        (tmp_path / f"class {i}").mkdir()
        for j in range(3):
            shade = (20 * i, 40 * j, 90)
            Image.new("RGB", (8, 8), shade).save(tmp_path / f"class {i}" / f"{j}.png")
    found = suite(Registry.discover(), f"folder:{tmp_path}")
    outcomes = found.run()
    assert [(o.id, o.message) for o in outcomes if o.status == "failed"] == []
