"""Options that are read from signatures, checked, and put back into constructors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import torch
from msgspec import Meta

from fewshot_bench.config.options import Option, method_options, options_of, split_dataset
from fewshot_bench.episode import Task
from fewshot_bench.errors import ConfigError, PluginError
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.method import Method
from fewshot_bench.runs.build import build_backbone, build_method


class Inner(Method):
    """A method with options, for another to take."""

    def __init__(self, task: Task, backbone: Any, *, rate: float = 0.5, steps: int = 1) -> None:
        super().__init__(task, backbone)
        self.rate, self.steps = rate, steps


class Outer(Method):
    """A method that takes a method."""

    wants_backbone = False

    def __init__(
        self,
        task: Task,
        *,
        base: Annotated[Method, "the method inside"] = "inner",  # type: ignore[assignment]
        rate: Annotated[float, "the outer rate"] = 2,
    ) -> None:
        super().__init__(task)
        self.base, self.rate = base, rate


@pytest.fixture
def registry(fake_distribution: Callable[..., Path]) -> Registry:
    """A registry with ``inner``, ``outer`` and a backbone without ``out_shape``."""
    fake_distribution(
        "fake-methods",
        "fake_methods",
        "from fewshot_bench import hookimpl\n"
        "from torch import nn\n"
        "@hookimpl\ndef register_methods():\n"
        f"    return {{'inner': '{__name__}:Inner', 'outer': '{__name__}:Outer'}}\n"
        "@hookimpl\ndef register_backbones():\n"
        "    return {'shapeless': 'fake_methods:shapeless'}\n"
        "def shapeless(image_shape):\n    return nn.Identity()\n",
    )
    return Registry.discover()


Choice, Positive = Literal["a", "b"], Annotated[int, Meta(ge=1)]


def every_type(
    task: object,
    *,
    flag: Annotated[bool, "a switch"] = True,
    count: Annotated[int, "a count"] = 3,
    rate: float = 1,
    word: str = "w",
    bounded: Annotated[int, Meta(ge=2), "a number"] = 2,
    choice: Literal["a", "b"] = "a",
    maybe: int | None = None,
    maybe_choice: Literal["a", "b"] | None = None,
    pair: tuple[float, float] = (0.5, 0.9),
    maybe_pair: tuple[int, int] | None = None,
    several: tuple[str, ...] = (),
    unannotated=0.25,  # type: ignore[no-untyped-def]
) -> None: ...


def test_options_are_the_keyword_only_parameters_in_order() -> None:
    assert options_of(every_type) == [
        Option("flag", bool, True, "a switch"),
        Option("count", int, 3, "a count"),
        Option("rate", float, 1),
        Option("word", str, "w"),
        Option("bounded", Annotated[int, Meta(ge=2)], 2, "a number"),
        Option("choice", Literal["a", "b"], "a"),
        Option("maybe", int, None, optional=True),
        Option("maybe_choice", Literal["a", "b"], None, optional=True),
        Option("pair", tuple[float, float], (0.5, 0.9)),
        Option("maybe_pair", tuple[int, int], None, optional=True),
        Option("several", tuple[str, ...], ()),
        Option("unannotated", float, 0.25),
    ]


def test_a_flag_is_typed_with_dashes() -> None:
    assert Option("inner_lr", float, 0.1).flag == "--inner-lr"


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        (Option("x", int, 0), "12", 12),
        (Option("x", int, 0), 12.0, 12),
        (Option("x", float, 0), 3, 3.0),
        (Option("x", float, 0), "1e-3", 0.001),
        (Option("x", bool, True), False, False),
        (Option("x", str, ""), "none", "none"),
        (Option("x", str, None, optional=True), "none", None),
        (Option("x", int, None, optional=True), None, None),
        (Option("x", tuple[float, float], ()), [1, "0.5"], (1.0, 0.5)),
        (Option("x", tuple[str, ...], ()), "a", ("a",)),
        (Option("x", tuple[str, ...], ()), ["a", "b"], ("a", "b")),
        (Option("x", Choice, "a"), "b", "b"),
        (Option("x", Positive, 1), 1, 1),
    ],
)
def test_a_value_in_the_type_of_its_option(option: Option, value: Any, expected: Any) -> None:
    checked = option.check(value)
    assert checked == expected
    assert type(checked) is type(expected)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        (Option("my_x", int, 0), "1.5", "an integer"),
        (Option("my_x", int, 0), 1.5, "an integer"),
        (Option("my_x", int, 0), True, "an integer"),
        (Option("my_x", int, 0), "none", "an integer"),
        (Option("my_x", int, 0), 2**63, "an integer"),
        (Option("my_x", float, 0), "fast", "a number"),
        (Option("my_x", float, 0), False, "a number"),
        (Option("my_x", float, 0), "inf", "a number"),
        (Option("my_x", float, 0), "nan", "a number"),
        (Option("my_x", bool, True), 1, "true or false"),
        (Option("my_x", bool, True), "yes", "true or false"),
        (Option("my_x", str, ""), 3, "text"),
        (Option("my_x", str, ""), None, "text"),
        (Option("my_x", Choice, "a"), "c", "one of a, b"),
        (Option("my_x", Choice, "a", optional=True), "c", "one of a, b or none"),
        (Option("my_x", tuple[float, float], ()), [1], "2 numbers"),
        (Option("my_x", tuple[float, float], ()), 1.0, "2 numbers"),
        (Option("my_x", tuple[float, float], ()), [1, "x"], "2 numbers"),
        (Option("my_x", tuple[str, ...], ()), 3, "a name or a list of names"),
        (Option("my_x", Positive, 1), 0, "an integer >= 1"),
        (Option("my_x", Positive, 1), "-4", "an integer >= 1"),
    ],
)
def test_an_impossible_value(option: Option, value: Any, expected: str) -> None:
    with pytest.raises(ConfigError) as refused:
        option.check(value)
    assert str(refused.value) == f"--my-x: expected {expected}, got {value!r}."


def no_default(*, rate: float) -> None: ...
def a_list(*, sizes: list[int] = []) -> None: ...  # noqa: B006
def two_types(*, rate: int | str = 1) -> None: ...
def numbers_to_choose(*, stride: Literal[1, 2] = 1) -> None: ...
def mixed(*, sizes: tuple[int, str] = (1, "a")) -> None: ...
def unreadable(*, rate: NoSuchName = 1) -> None: ...  # type: ignore[name-defined] # noqa: F821


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (no_default, "no_default: parameter 'rate' has no default"),
        (a_list, r"a_list: parameter 'sizes' is of type list\[int\]"),
        (two_types, "parameter 'rate' is of type .*one type"),
        (numbers_to_choose, "choices of a Literal have to be text"),
        (mixed, "a tuple has to be of items of one plain type"),
        (unreadable, "unreadable: name 'NoSuchName' is not defined"),
    ],
)
def test_a_signature_that_cannot_be_typed(factory: Callable[..., None], message: str) -> None:
    with pytest.raises(PluginError, match=message):
        options_of(factory)


def test_a_nested_method_brings_its_options_with_a_prefix(registry: Registry) -> None:
    options = {o.name: o for o in method_options(registry, "outer", {})}
    assert list(options) == ["base", "base_rate", "base_steps", "rate"]
    assert options["base"].method
    assert (options["base_rate"].default, options["rate"].default) == (0.5, 2)
    deeper = method_options(registry, "outer", {"base": "outer"})
    assert [o.name for o in deeper][:4] == [
        "base",
        "base_base",
        "base_base_rate",
        "base_base_steps",
    ]


def test_a_method_is_built_with_the_one_inside(registry: Registry) -> None:
    flat = {"base": "inner", "base_rate": 0.1, "base_steps": 4, "rate": 0.3}
    backbone, task = torch.nn.Identity(), Task(5, 1, 1)
    method: Any = build_method(registry, "outer", flat, task, backbone)
    assert (method.rate, method.base.rate, method.base.steps) == (0.3, 0.1, 4)
    assert method.base.backbone is backbone
    assert method.backbone is None
    assert method.task is method.base.task is task


def test_a_backbone_has_to_tell_its_shape(registry: Registry) -> None:
    with pytest.raises(PluginError, match=r"backbone 'shapeless' of .* has no out_shape"):
        build_backbone(registry, "shapeless", {}, (1, 28, 28))
    backbone = build_backbone(registry, "conv4", {"backbone_channels": 8}, (1, 28, 28))
    assert backbone.out_shape == (8, 1, 1)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("folder:/a/b", ("folder", "/a/b")),
        ("folder:C:/a", ("folder", "C:/a")),
        ("glyphs", ("glyphs", None)),
        ("fewshot-bench:glyphs", ("fewshot-bench:glyphs", None)),
    ],
)
def test_a_data_set_and_its_path(typed: str, expected: tuple[str, str | None]) -> None:
    assert split_dataset(Registry.discover(), typed) == expected
