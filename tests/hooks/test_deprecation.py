"""What is to go is told with the plugin's line, and works on."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from fewshot_bench.errors import InterfaceDeprecation
from fewshot_bench.hooks import specs
from fewshot_bench.hooks.registry import Registry
from tests.command_line import InProcess

OLD = "locate_dataset goes with 0.9; write find_dataset"
PLUGIN = """from fewshot_bench import hookimpl


@hookimpl
def locate_dataset(name):
    return None
"""


@pytest.fixture
def plugin(fake_distribution: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plugin that implements a hook of which the specification says that it is to go."""
    specification = getattr(specs.locate_dataset, f"{specs.GROUP}_spec")
    monkeypatch.setitem(specification, "warn_on_impl", InterfaceDeprecation(OLD))
    return fake_distribution("fake-old", "fake_old", PLUGIN) / "fake_old.py"


def test_a_deprecated_hook_works_and_warns_with_the_plugins_line(plugin: Path) -> None:
    with pytest.warns(InterfaceDeprecation, match="write find_dataset") as told:
        registry = Registry.discover()
    assert [(w.filename, w.lineno) for w in told] == [(str(plugin), 4)]
    (info,) = (p for p in registry.plugins if p.distribution == "fake-old")
    assert info.status == "ok"
    assert registry.locate_dataset("no-such-data") is None


def test_the_command_shows_it_in_one_line(plugin: Path, fsb: InProcess) -> None:
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("ignore", DeprecationWarning)  # as Python starts
        answer = fsb("plugins").succeeded()
    assert "fake-old" in answer.out
    assert answer.err == f"deprecated: {OLD} ({plugin}, line 4)\n"
