"""The hook reference: complete, exact, and its examples run."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fewshot_bench import Dataset, Method, Observer, Sampler
from fewshot_bench.hooks import specs
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.testing.suites import suite

PAGE = (Path(__file__).parents[2] / "docs/hooks.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
HOOKS = {n: f for n, f in vars(specs).items() if hasattr(f, f"{specs.GROUP}_spec")}
INHERITED = {"state_dict", "forward"}  # of nn.Module


def heading(name: str) -> str:
    """As the page has it: the hook with its exact arguments."""
    return f"{name}({', '.join(inspect.signature(HOOKS[name]).parameters)})"


def test_every_hook_has_a_section_and_every_section_a_hook() -> None:
    assert len(HOOKS) == 8
    documented = {title for title in SECTIONS if title.partition("(")[0] in HOOKS}
    assert documented == {heading(name) for name in HOOKS}
    assert not [t for t in SECTIONS if "(" in t and t.partition("(")[0] not in HOOKS]


@pytest.mark.parametrize("name", HOOKS)
def test_a_section_says_what_when_and_since(name: str) -> None:
    section = SECTIONS[heading(name)]
    assert "- Returns: " in section
    assert "- Called: " in section
    (since,) = re.findall(r"- Since interface (\d+)\.", section)
    assert 1 <= int(since) <= specs.INTERFACE


@pytest.mark.parametrize("name", HOOKS)
def test_an_example_runs(name: str, fake_distribution: Callable[..., Path]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", SECTIONS[heading(name)], re.DOTALL)
    fake_distribution("fake-example", "fake_example", code)
    registry = Registry.discover()
    assert [plugin.told for plugin in registry.plugins if plugin.error] == []
    kind = name.removeprefix("register_")
    if name == "locate_dataset":
        assert registry.locate_dataset("no-such-data") is None
    elif kind == "exporters":
        row = SimpleNamespace(title="a row")
        comparison: Any = SimpleNamespace(tables=[SimpleNamespace(rows=[row])])
        assert registry.resolve(kind, "example").load()(comparison) == "a row\n"
    else:
        found = suite(registry, "example", kind)
        outcomes = found.run()
        assert [(o.id, o.message) for o in outcomes if o.status == "failed"] == []


def members(kind: type) -> set[str]:
    """What an author may override or set."""
    own = {name for name in vars(kind) if not name.startswith("_")}
    own |= {name for name in vars(kind).get("__annotations__", {}) if not name.startswith("_")}
    own |= {name for name in ("__call__",) if name in vars(kind)}
    own |= {"__init__"} if "__init__" in vars(kind) and kind in (Method, Sampler) else set()
    return own - INHERITED


@pytest.mark.parametrize("kind", [Method, Dataset, Sampler, Observer], ids=lambda k: k.__name__)
def test_every_member_has_a_row_with_its_arguments(kind: type) -> None:
    section = SECTIONS[f"Members of {kind.__name__}"]
    rows = dict(re.findall(r"^\| `(\w+)(\([^`]*\))?` \|", section, re.MULTILINE))
    assert set(rows) == members(kind)
    for name, arguments in rows.items():
        member = inspect.getattr_static(kind, name, None)
        function = getattr(member, "__func__", member)
        if inspect.isfunction(function) and name != "__init__":
            wanted = [p for p in inspect.signature(function).parameters if p not in ("self", "cls")]
            assert arguments == f"({', '.join(wanted)})", name


def test_the_policy_names_the_number_of_the_interface() -> None:
    assert f"now {specs.INTERFACE}," in SECTIONS["How the interface changes"]
