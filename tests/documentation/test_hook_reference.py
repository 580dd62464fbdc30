"""The hook reference: complete, exact, and its examples run."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import fewshot_bench
from fewshot_bench import Dataset, Method, Sampler
from fewshot_bench.hooks import specs
from fewshot_bench.hooks.lifecycle import RunHooks
from fewshot_bench.hooks.registry import HOOKS, LIFECYCLE, Registry
from fewshot_bench.testing.suites import suite

PAGE = (Path(__file__).parents[2] / "docs/hooks.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
EXAMPLE = re.compile(r"```python\n(.*?)```", re.DOTALL)
INHERITED = {"state_dict", "forward"}  # of nn.Module


def arguments(name: str) -> list[str]:
    return list(inspect.signature(getattr(specs, name)).parameters)


def heading(name: str) -> str:
    """The heading of a hook: its name with its exact arguments."""
    return f"{name}({', '.join(arguments(name))})"


def test_every_hook_has_a_section_and_every_section_a_hook() -> None:
    assert len(HOOKS) == 16
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
    if name in LIFECYCLE:
        assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == arguments(name)


@pytest.mark.parametrize("name", [name for name in HOOKS if name not in LIFECYCLE])
def test_an_example_runs(name: str, fake_distribution: Callable[..., Path]) -> None:
    (code,) = EXAMPLE.findall(SECTIONS[heading(name)])
    fake_distribution("fake-example", "fake_example", code)
    registry = Registry.discover()
    assert [plugin.problem for plugin in registry.plugins if plugin.error] == []
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


def test_the_whole_observer_runs(
    fake_distribution: Callable[..., Path], data_cache: Path, tmp_path: Path
) -> None:
    (code,) = EXAMPLE.findall(SECTIONS["Observers"])
    assert len([line for line in code.splitlines() if line]) < 35  # a page
    fake_distribution("fake-example", "fake_example", code)
    record = fewshot_bench.run(
        "nearest-centroid", with_="class-accuracy", train_classes=6, validation_classes=6,
        test_classes=6, way=3, shot=1, query=2, episodes=12, runs_dir=str(tmp_path / "runs"),
        cache_dir=str(data_cache),
    )  # fmt: skip
    path = tmp_path / "runs" / record["id"] / "class_accuracy.json"
    accuracy = json.loads(path.read_text("utf-8"))
    assert len(accuracy) == 6
    assert 0 < sum(accuracy.values()) / 6 < 1


def test_the_wrapper_wraps(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = EXAMPLE.findall(SECTIONS["Order and wrappers of observers"])
    space: dict[str, Any] = {}
    exec(compile(code, "docs/hooks.md", "exec"), space)  # noqa: S102
    RunHooks({"a": space["Upload"], "b": space["Stopwatch"]}).run_finished(record={})
    assert re.fullmatch(r"observers: 0\.\d{3} s\n", capsys.readouterr().err)


def members(kind: type) -> set[str]:
    """The members that an author may override or set."""
    own = {name for name in vars(kind) if not name.startswith("_")}
    own |= {name for name in vars(kind).get("__annotations__", {}) if not name.startswith("_")}
    own |= {name for name in ("__call__",) if name in vars(kind)}
    own |= {"__init__"} if "__init__" in vars(kind) and kind in (Method, Sampler) else set()
    return own - INHERITED


@pytest.mark.parametrize("kind", [Method, Dataset, Sampler], ids=lambda k: k.__name__)
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
