"""Commands that plugins bring: listed by name, imported when called, harmless when broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command_line import InProcess
from tests.dist_info import write_dist_info

SOURCE = """
import typer
print("imported")
app = typer.Typer()
@app.command()
def hello(name: str) -> None:
    print("hello", name)
group = typer.Typer()
@group.command()
def one() -> None:
    print("one")
@group.command()
def two() -> None:
    print("two")
def function() -> None: ...
"""
POINTS = {
    "hello": "fake_commands:app",
    "grouped": "fake_commands:group",
    "function": "fake_commands:function",
    "broken": "no_such_module_at_all:app",
    "run": "fake_commands:app",
}


def install(site: Path, distribution: str, points: dict[str, str]) -> None:
    lines = [f"{name} = {target}" for name, target in points.items()]
    text = "\n".join(["[fewshot_bench.commands]", *lines, ""])
    write_dist_info(site, distribution, "1.0", text)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an installed distribution of commands."""
    monkeypatch.syspath_prepend(str(tmp_path))
    install(tmp_path, "fake-commands", POINTS)
    (tmp_path / "fake_commands.py").write_text(SOURCE, "utf-8")
    return tmp_path


def test_commands_are_listed_without_being_imported(site: Path, fsb: InProcess) -> None:
    said = fsb("--help")
    assert said.code == 0, said.err
    assert "imported" not in said.out + said.err
    for name in ("hello", "grouped", "broken", "fake-commands:run"):
        assert f"  {name} " in said.out
    assert "from fake-commands" in said.out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["hello", "world"], "hello world"),
        (["grouped", "two"], "two"),
        (["fake-commands:hello", "world"], "hello world"),
        (["fake-commands:run", "world"], "hello world"),
    ],
)
def test_a_command_runs(site: Path, arguments: list[str], expected: str, fsb: InProcess) -> None:
    said = fsb(*arguments)
    assert (said.code, said.out) == (0, expected + "\n"), said.err


def test_a_plugin_takes_no_built_in_command_away(site: Path, fsb: InProcess) -> None:
    said = fsb("run", "--help")
    assert said.code == 0
    assert "METHOD" in said.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["broken"], ("'broken' of fake-commands", "cannot be loaded", "ModuleNotFoundError")),
        (["function"], ("is a function; expected a typer.Typer",)),
        (["hello", "world", "--loud"], ("no option '--loud'", "'fsb hello --help'")),
        (["grouped", "twoo"], ("'twoo'", "'two'", "'fsb grouped --help'")),
        (["no-such-command"], ("No such command 'no-such-command'",)),
    ],
)
def test_one_line_and_code_2(
    site: Path, arguments: list[str], words: tuple[str, ...], fsb: InProcess
) -> None:
    said = fsb(*arguments)
    error = said.err.removeprefix("imported\n")
    assert said.code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert all(word in error for word in words), error


def test_a_name_claimed_twice_is_refused_only_when_bare(site: Path, fsb: InProcess) -> None:
    install(site, "another", {"hello": "fake_commands:group"})
    said = fsb("hello", "world")
    assert said.code == 2
    assert "write another:hello or fake-commands:hello" in said.err
    assert fsb("another:hello", "one").out == "one\n"
    assert "another:hello" in fsb("--help").out


def test_fsb_plugins_holds_for_commands_too(site: Path, fsb: InProcess) -> None:
    assert "fake-commands" not in fsb("--help", FSB_PLUGINS="standard").out


def test_commands_have_rows_of_their_own(site: Path, fsb: InProcess) -> None:
    listed = fsb("plugins", COLUMNS="300").out
    rows = {line.split()[0]: line for line in listed.splitlines()}
    assert rows["hello"].split()[1:] == ["fake-commands", "1.0", "command", "ok", "fsb", "hello"]
    assert "broken" in rows["function"]
    assert "expected a typer.Typer" in rows["function"]
    assert "No module named 'no_such_module_at_all'" in rows["broken"]
    assert "Traceback" in fsb("plugins", "--trace", "function").out
