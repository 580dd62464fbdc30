"""Options of subclasses, and groups of options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from fewshot_bench.config.options import arguments_of, options_of
from fewshot_bench.errors import PluginError


@dataclass(frozen=True)
class Optimizer:
    """Settings that belong together."""

    lr: Annotated[float, "the rate"] = 0.1
    betas: tuple[float, float] = (0.5, 0.9)


class Parent:
    def __init__(self, *, rate: float = 0.5, steps: Annotated[int, "how many"] = 1) -> None:
        self.rate, self.steps = rate, steps


class Child(Parent):
    def __init__(
        self,
        *,
        rate: Annotated[float, "its own"] = 0.25,
        adam: Optimizer = Optimizer(lr=0.2),
        **options: Any,
    ) -> None:
        super().__init__(rate=rate, **options)
        self.adam = adam


class Grandchild(Child):
    pass


class Narrow(Child):
    def __init__(self, *, width: int = 3) -> None:
        super().__init__()


def test_a_subclass_with_options_of_any_name_inherits_those_of_its_bases() -> None:
    names = ["rate", "adam_lr", "adam_betas", "steps"]
    assert [option.name for option in options_of(Child)] == names
    assert options_of(Grandchild) == options_of(Child)
    rate, *_, steps = options_of(Child)
    assert (rate.default, rate.help) == (0.25, "its own")
    assert (steps.default, steps.help) == (1, "how many")


def test_a_subclass_that_takes_no_others_inherits_none() -> None:
    assert [option.name for option in options_of(Narrow)] == ["width"]


def test_a_dataclass_is_a_group_of_options() -> None:
    _, lr, betas, _ = options_of(Child, "base_")
    assert (lr.name, lr.flag, lr.default, lr.help) == (
        "base_adam_lr", "--base-adam-lr", 0.2, "the rate",
    )  # fmt: skip
    assert (betas.items, betas.default) == (2, (0.5, 0.9))
    built = Child(**arguments_of(Child, {"adam_betas": (0.1, 0.2), "steps": 7}))
    assert built.adam == Optimizer(lr=0.2, betas=(0.1, 0.2))
    assert built.steps == 7


def test_a_group_needs_a_default() -> None:
    def grouped(*, adam: Optimizer) -> None: ...

    with pytest.raises(PluginError, match="parameter 'adam' has no default"):
        options_of(grouped)
