"""``fsb --help``: the commands, in the order of use."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewshot_bench.cli.main import ORDER
from tests.cli.test_plugin_commands import install
from tests.command_line import InProcess

EXPECTED = [
    "run",
    "compare",
    "report",
    "figure",
    "eval",
    "resume",
    "predict",
    "plan",
    "data",
    "list",
    "plugins",
    "new",
    "check",
]


def commands(text: str) -> list[str]:
    """The names in the list of commands."""
    return [line.split()[0] for line in text.partition("Commands:\n")[2].splitlines()]


def test_commands_are_in_the_order_of_use(fsb: InProcess) -> None:
    assert commands(fsb("--help").succeeded().out) == EXPECTED


def test_commands_of_plugins_come_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fsb: InProcess
) -> None:
    install(tmp_path, "fake-commands", {"aaa": "nothing:app", "run": "nothing:app"})
    monkeypatch.syspath_prepend(str(tmp_path))
    found = commands(fsb("--help").succeeded().out)
    assert found[: len(EXPECTED)] == EXPECTED
    assert set(found[len(EXPECTED) :]) == {"aaa", "fake-commands:run"}


@pytest.mark.parametrize("name", [name for name in ORDER if name not in ("run", "data")])
def test_every_command_has_a_help_page(name: str, fsb: InProcess) -> None:
    text = fsb(name, "--help", COLUMNS="300").succeeded().out
    assert f"fsb {name}" in text
    assert "--help" in text


@pytest.mark.parametrize("name", ["run", "data", "data list", "data prepare", "data show"])
def test_every_group_has_a_help_page(name: str, fsb: InProcess) -> None:
    assert f"fsb {name}" in fsb(*name.split(), "--help", COLUMNS="300").succeeded().out
