"""The registry against made-up distributions: whatever one does, the others work."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fewshot_bench.errors import ConfigError, PluginError, UnknownName
from fewshot_bench.hooks.registry import KINDS, PluginInfo, Registry

Install = Callable[..., Path]

HEAD = "from fewshot_bench import hookimpl\n"
GOOD = HEAD + "@hookimpl\ndef register_methods():\n    return {'good': 'json:loads'}\n"

BROKEN = {
    "import failure": ("import no_such_module_at_all", ("ModuleNotFoundError", "no_such_module")),
    "a module that exits": ("raise SystemExit(3)", ("SystemExit",)),
    "a hook that raises": (
        "@hookimpl\ndef register_methods():\n    raise RuntimeError('out of cheese')",
        ("RuntimeError", "out of cheese"),
    ),
    "no dictionary": (
        "@hookimpl\ndef register_methods():\n    return ['a']",
        ("register_methods() returned list", "dictionary"),
    ),
    "no import string": (
        "@hookimpl\ndef register_methods():\n    return {'a': 'json.loads'}",
        ("'json.loads'", "module:attribute"),
    ),
    "a class in place of its import string": (
        "@hookimpl\ndef register_methods():\n    return {'a': dict}",
        ("<class 'dict'>", "module:attribute"),
    ),
    "a name with a colon": (
        "@hookimpl\ndef register_methods():\n    return {'a:b': 'json:loads'}",
        ("'a:b'", "letters"),
    ),
    "unknown hook": (
        "@hookimpl\ndef register_method():\n    return {}",
        ("register_method is no hook", "did you mean 'register_methods'?"),
    ),
    "misspelt argument": (
        "@hookimpl\ndef locate_dataset(nmae):\n    return None",
        ("asks for 'nmae'", "did you mean 'name'?"),
    ),
    "an argument of a hook that gives none": (
        "@hookimpl\ndef register_methods(config):\n    return {}",
        ("asks for 'config'", "there are: none"),
    ),
    "no @hookimpl": (
        "def register_methods():\n    return {'a': 'json:loads'}",
        ("register_methods lacks @hookimpl",),
    ),
}


def row(registry: Registry, name: str) -> PluginInfo:
    return next(plugin for plugin in registry.plugins if plugin.name == name)


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_a_row_and_harms_no_other(
    case: str, fake_distribution: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, words = BROKEN[case]
    fake_distribution("fake-broken", "fake_broken", HEAD + source + "\n")
    fake_distribution("fake-good", "fake_good", GOOD)
    registry = Registry.discover()
    broken = row(registry, "fake_broken")
    assert broken.status == "broken"
    assert broken.distribution == "fake-broken"
    assert broken.version == "1.0"
    assert all(word in (broken.error or "") for word in words), broken.error
    assert "Traceback" in broken.traceback
    assert [p.name for p in registry.plugins if p.error] == ["fake_broken"]
    assert registry.resolve("methods", "good").target == "json:loads"
    assert row(registry, "standard").status == "ok"
    with pytest.raises(UnknownName, match="Broken plugins: fake_broken; see 'fsb plugins'"):
        registry.resolve("methods", "a")


def test_a_name_claimed_twice_is_refused_only_when_bare(fake_distribution: Install) -> None:
    fake_distribution("fake-one", "fake_one", GOOD)
    fake_distribution(
        "fake-two", "fake_two", GOOD.replace("loads'", "dumps', 'other': 'json:load'")
    )
    registry = Registry.discover()
    with pytest.raises(ConfigError, match="'good'; write fake-one:good or fake-two:good"):
        registry.resolve("methods", "good")
    assert registry.resolve("methods", "fake-one:good").target == "json:loads"
    assert registry.resolve("methods", "fake-two:good").target == "json:dumps"
    assert registry.resolve("methods", "other").distribution == "fake-two"
    with pytest.raises(UnknownName):
        registry.resolve("methods", "fake-one:other")


def test_the_same_distribution_twice_on_the_path_counts_once(
    fake_distribution: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = fake_distribution("fake-good", "fake_good", GOOD)
    again = tmp_path / "again"
    again.symlink_to(site)
    monkeypatch.syspath_prepend(str(again))
    assert len(Registry.discover().names("methods")["good"]) == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("fake_one", {"fake_one"}),
        ("fake-two", {"fake_two"}),
        (" fake_one , fake-two,", {"fake_one", "fake_two"}),
        ("", set()),
    ],
)
def test_fsb_plugins_loads_only_what_it_names(
    value: str, expected: set[str], fake_distribution: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_distribution("fake-one", "fake_one", GOOD)
    fake_distribution("fake-two", "fake_two", GOOD)
    monkeypatch.setenv("FSB_PLUGINS", value)
    registry = Registry.discover()
    assert {plugin.name for plugin in registry.plugins} == expected
    if not expected:
        assert not any(registry.names(kind) for kind in KINDS)


@pytest.mark.parametrize("target", ["no_such_module_at_all:X", "json:no_such_attribute"])
def test_a_target_that_fails_to_load_names_its_distribution(
    target: str, fake_distribution: Install
) -> None:
    fake_distribution("fake-good", "fake_good", GOOD.replace("json:loads", target))
    registry = Registry.discover()
    assert row(registry, "fake_good").status == "ok"
    with pytest.raises(PluginError, match=f"method 'good' of fake-good 1.0 .*'{target}'"):
        registry.resolve("methods", "good").load()


def test_locate_dataset_takes_the_first_result(fake_distribution: Install) -> None:
    hook = HEAD + "@hookimpl\ndef locate_dataset(name):\n    return {ANSWER}\n"
    fake_distribution("fake-none", "fake_none", hook.replace("{ANSWER}", "None"))
    only = "'/here' if name == 'mine' else None"
    fake_distribution("fake-here", "fake_here", hook.replace("{ANSWER}", only))
    registry = Registry.discover()
    assert registry.locate_dataset("mine") == Path("/here")
    assert registry.locate_dataset("another") is None


def test_a_locate_dataset_hook_that_raises_is_a_plugin_error(fake_distribution: Install) -> None:
    hook = HEAD + "@hookimpl\ndef locate_dataset(name):\n    raise RuntimeError('no disk')\n"
    fake_distribution("fake-raises", "fake_raises", hook)
    with pytest.raises(PluginError, match=r"locate_dataset.*RuntimeError: no disk"):
        Registry.discover().locate_dataset("mine")


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'markdown'") as error:
        Registry.discover().resolve("exporters", "markdwon")
    assert "Known: csv, html, json, latex, markdown." in str(error.value)


def test_discovering_imports_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from fewshot_bench.hooks.registry import Registry\n"
        "registry = Registry.discover()\n"
        "assert registry.names('methods') and not any(p.error for p in registry.plugins)\n"
        "print({'torch', 'numpy', 'scipy', 'torchvision'} & set(sys.modules))\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=os.environ, check=False
    )
    assert (said.stdout.strip(), said.returncode) == ("set()", 0), said.stderr
