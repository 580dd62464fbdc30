"""Every wrong plugin gets its one line, and nothing else breaks."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewshot_bench.hooks.registry import Registry
from tests.wrong_plugins import CASES, PAGE, Wrong, installed, row


@pytest.fixture(autouse=True)
def _as_for_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine in the messages."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("FSB_PLUGINS", raising=False)


@pytest.mark.parametrize("wrong", CASES, ids=lambda wrong: wrong.what)
def test_the_table_has_what_it_is_told(wrong: Wrong) -> None:
    assert row(wrong) in PAGE.read_text("utf-8").splitlines()


def test_the_table_has_no_other_rows() -> None:
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    assert len(rows) == len(CASES) + 1 > 16
    assert not [line for line in rows if "Traceback" in line]


@pytest.mark.parametrize(
    "wrong", [wrong for wrong in CASES if wrong.typed == "plugins"], ids=lambda wrong: wrong.what
)
def test_nothing_else_breaks(wrong: Wrong, tmp_path: Path) -> None:
    before = {plugin.name: plugin.kinds for plugin in Registry.discover().plugins}
    with installed(wrong, tmp_path / "site"):
        registry = Registry.discover()
    broken = [plugin for plugin in registry.plugins if plugin.error]
    assert [plugin.distribution for plugin in broken] == ["wrong-plugin"]
    assert "Traceback" in broken[0].traceback or "SyntaxError" in broken[0].traceback
    assert broken[0].problem.count("\n") == 0
    rest = {plugin.name: plugin.kinds for plugin in registry.plugins if not plugin.error}
    rest = {name: kinds for name, kinds in rest.items() if name in before}
    assert rest == before
    assert registry.resolve("methods", "maml").distribution == "fewshot-bench"
