"""The registry against made-up distributions: whatever one does, the others work."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fewshot_bench.config.resolve import configure
from fewshot_bench.errors import ConfigError, PluginError, PluginWarning, UnknownName
from fewshot_bench.hooks.registry import KINDS, PluginInfo, Registry

Install = Callable[..., Path]

HEAD = "from fewshot_bench import hookimpl\n"
GOOD = HEAD + "@hookimpl\ndef register_methods():\n    return {'good': 'json:loads'}\n"


def row(registry: Registry, name: str) -> PluginInfo:
    return next(plugin for plugin in registry.plugins if plugin.name == name)


def test_a_broken_plugin_is_a_row_and_a_hint(fake_distribution: Install) -> None:
    fake_distribution("fake-broken", "fake_broken", "import no_such_module")
    registry = Registry.discover()
    broken = row(registry, "fake_broken")
    assert (broken.status, broken.distribution, broken.version) == ("broken", "fake-broken", "1.0")
    assert "ModuleNotFoundError" in broken.traceback
    with pytest.raises(UnknownName, match="Broken plugins: fake_broken of fake-broken; see"):
        registry.resolve("methods", "a")
    with pytest.raises(PluginError, match=r"'fake_broken' of fake-broken 1.0 is broken: .*no_such"):
        registry.resolve("methods", "fake-broken")


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


@pytest.mark.parametrize("target", ["no_such:no_such", "json:no_such_attribute"])
def test_a_target_that_fails_to_load_names_its_distribution(
    target: str, fake_distribution: Install
) -> None:
    fake_distribution("fake-good", "fake_good", GOOD.replace("json:loads", target))
    registry = Registry.discover()
    assert row(registry, "fake_good").status == "ok"
    with pytest.raises(
        PluginError, match=f"method 'good' of fake-good 1.0 .*{target.rpartition(':')[2]}"
    ):
        registry.resolve("methods", "good").load()


def test_locate_dataset_takes_the_first_result(fake_distribution: Install) -> None:
    hook = HEAD + "@hookimpl\ndef locate_dataset(name):\n    return {ANSWER}\n"
    fake_distribution("fake-none", "fake_none", hook.replace("{ANSWER}", "None"))
    only = "'/here' if name == 'mine' else None"
    fake_distribution("fake-here", "fake_here", hook.replace("{ANSWER}", only))
    registry = Registry.discover()
    assert registry.locate_dataset("mine") == Path("/here")
    assert registry.locate_dataset("another") is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise RuntimeError('no disk')", "raised RuntimeError: no disk; skipped it"),
        ("raise TypeError('no type')", "raised TypeError: no type; skipped it"),
        ("return 3", "expected a folder or None, got int"),
    ],
)
def test_a_locate_dataset_hook_that_fails_is_skipped(
    body: str, message: str, fake_distribution: Install
) -> None:
    hook = HEAD + "@hookimpl\ndef locate_dataset(name):\n    BODY\n"
    fake_distribution("fake-here", "fake_here", hook.replace("BODY", "return '/here'"))
    fake_distribution("fake-wrong", "fake_wrong", hook.replace("BODY", body))
    registry = Registry.discover()
    with pytest.warns(
        PluginWarning, match=f"'fake_wrong' of fake-wrong 1.0 is broken: .*{message}"
    ):
        assert registry.locate_dataset("mine") == Path("/here")
    assert row(registry, "fake_wrong").status == "broken"


def test_fsb_plugins_is_named_where_a_name_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSB_PLUGINS", "standard")
    with pytest.raises(UnknownName, match="FSB_PLUGINS allows only: standard"):
        Registry.discover().resolve("methods", "maml")


def test_defaults_keep_their_meaning_when_their_names_are_taken(
    fake_distribution: Install,
) -> None:
    taken = GOOD.replace("good", "maml") + "".join(
        f"@hookimpl\ndef register_{kind}():\n    return {{'{name}': 'json:loads'}}\n"
        for kind, name in (
            ("datasets", "glyphs"),
            ("backbones", "conv4-strided"),
            ("samplers", "closed"),
        )
    )
    before = configure("metagan").to_dict()
    fake_distribution("fake-taker", "fake_taker", taken)
    after = configure("metagan").to_dict()
    assert after["method_options"].pop("base") == "fewshot-bench:maml"
    assert before["method_options"].pop("base") == "maml"
    for setting in ("dataset", "backbone", "sampling"):
        assert after[setting] == f"fewshot-bench:{before.pop(setting)}"
        after.pop(setting)
    assert after == before
    with pytest.raises(ConfigError, match="'glyphs'; write fake-taker:glyphs or fewshot-bench:gl"):
        configure("metagan", dataset="glyphs")


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
