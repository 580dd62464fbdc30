"""``fsb new``: a distribution of each kind that works as it is written."""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest

from fewshot_bench.errors import ConfigError, UnknownName
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.hooks.scaffold import KINDS, derive, new_plugin
from fewshot_bench.hooks.specs import INTERFACE
from fewshot_bench.testing.suites import suite
from tests.dist_info import write_dist_info


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip makes of the folder: its metadata, and its modules on the path."""
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    (points,) = project["entry-points"].values()
    lines = [f"{name} = {module}" for name, module in points.items()]
    text = "\n".join(["[fewshot_bench]", *lines])
    write_dist_info(folder, project["name"], project["version"], text)
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_passes_the_conformance_suite_as_written(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"Fresh {kind}"
    written = new_plugin(name, kind, tmp_path, Registry.discover())
    folder = tmp_path / f"fresh-{kind}"
    files = {str(path.relative_to(folder)) for path in written}
    assert files == {
        "pyproject.toml", "README.md", ".gitignore", ".github/workflows/check.yml",
        "tests/test_conformance.py", f"fresh_{kind}/__init__.py", f"fresh_{kind}/{kind}.py",
    }  # fmt: skip
    assert not [path for path in written if "$module" in path.read_text("utf-8")]
    install(folder, monkeypatch)
    registry = Registry.discover()
    assert not [plugin.problem for plugin in registry.plugins if plugin.error]
    found = suite(registry, f"fresh-{kind}", f"{kind}s")
    outcomes = found.run()
    assert [(o.id, o.message) for o in outcomes if o.status == "failed"] == []
    assert f'conformance("fresh-{kind}:fresh-{kind}", "{kind}s")' in (
        folder / "tests/test_conformance.py"
    ).read_text("utf-8")
    for module in [m for m in sys.modules if m.startswith("fresh_")]:
        del sys.modules[module]


@pytest.mark.parametrize("kind", KINDS)
def test_an_algorithm_is_short(kind: str, tmp_path: Path) -> None:
    new_plugin("fresh", kind, tmp_path, Registry.discover())
    text = (tmp_path / "fresh" / "fresh" / f"{kind}.py").read_text("utf-8")
    _, *algorithm = re.split(r"^(?=class |def )", text, flags=re.MULTILINE)
    assert 9 <= len([line for line in "".join(algorithm).splitlines() if line.strip()]) <= 20


@pytest.mark.parametrize(
    ("typed", "distribution", "module", "attribute"),
    [
        ("my-method", "my-method", "my_method", "MyMethod"),
        ("MyMethod", "my-method", "my_method", "MyMethod"),
        ("my method 2", "my-method-2", "my_method_2", "MyMethod2"),
        ("Conv4Net", "conv4-net", "conv4_net", "Conv4Net"),
        ("MAMLplus", "mamlplus", "mamlplus", "Mamlplus"),
        ("Zürich", "zurich", "zurich", "Zurich"),
    ],
)
def test_names_are_derived(typed: str, distribution: str, module: str, attribute: str) -> None:
    names = derive(typed, "method", Registry.discover())
    found = (names["distribution"], names["module"], names["attribute"])
    assert found == (distribution, module, attribute)
    assert names["interface"] == str(INTERFACE)


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("3D net", "begins with a letter"),
        ("!?", "begins with a letter"),
        ("", "begins with a letter"),
        ("class", "Python has 'class' already"),
        ("json", "Python has 'json' already"),
        ("maml", "method 'maml' of fewshot-bench 0.1.0 has the name"),
        ("../there", "is a path; give a name"),
    ],
)
def test_a_name_that_cannot_be_has_a_reason(typed: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=reason):
        new_plugin(typed, "method", tmp_path, Registry.discover())
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    new_plugin("fresh", "metric", tmp_path, Registry.discover())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="exists and is not overwritten"):
        new_plugin("fresh", "method", tmp_path, Registry.discover())
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_an_unknown_kind_and_a_folder_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'method'"):
        new_plugin("fresh", "metod", tmp_path, Registry.discover())
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(ConfigError, match="cannot write"):
        new_plugin("fresh", "method", tmp_path / "file", Registry.discover())
