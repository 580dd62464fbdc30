"""Every code block of every page runs; exceptions are listed here, with the reason."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from tests.documentation.blocks import LANGUAGES, ROOT, Block, blocks, name_of, outside, pages
from tests.documentation.sandbox import (
    draw_runs,
    furnish,
    importable,
    install,
    parse_command,
    placed,
    run_command,
)

PAGES = pages()
WITH_CODE = [page for page in PAGES if any(b.language not in ("text", "") for b in blocks(page))]
ANOTHER_MACHINE = "installs or starts other programs; CI runs tests/as_a_new_user.py"
NO_DATA = "its data are not in the repository; the command is parsed and configured"
# Exceptions: (pattern of the page, pattern of the code) -> reason.
NOT_RUN = {
    (r".*", r"(pip|uv|tensorboard|tools/check|benchmarks/\S+)( .*)?"): ANOTHER_MACHINE,
    (r".*", r"fsb (run|compare) .*--dataset (omniglot|folder:(?!my-)).*"): NO_DATA,
    (r"docs/compare.md", r"fsb compare grid.toml"): NO_DATA,
    (r"docs/compare.md", r"fsb compare my-method .*"): "the method is the reader's own",
    (
        r"docs/compare.md",
        r"fsb compare runs/ --equal .*",
    ): "its runs differ, so it refuses",
    (r".*", r"fsb data (prepare|verify|show) omniglot.*"): NO_DATA,
    (r".*", r"fsb resume runs/\S+-2026\S+"): "there is no interrupted run to resume",
    (r"docs/figures.md", r"fsb figure KIND .*"): "shows a syntax, not a command",
    (r"docs/plugins.md", r"import mlflow\n.*"): "MLflow is not a dependency",
}


def reason(page: Path, code: str) -> str | None:
    """The reason that a block or command is not run, if there is one."""
    for (where, what), why in NOT_RUN.items():
        if re.fullmatch(where, name_of(page)) and re.fullmatch(what, code, re.DOTALL):
            return why
    return None


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, data_cache: Path) -> Path:
    """A folder with two small runs in its ``runs/``."""
    folder = tmp_path_factory.mktemp("runs")
    draw_runs(folder, data_cache)
    return folder


@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_the_code_of_a_page_runs(
    page: Path, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    furnish(tmp_path, runs)
    for project in page.parent.glob("*/pyproject.toml"):
        install(project.parent, tmp_path)
    found = blocks(page)
    for block in found:
        if block.file:
            (tmp_path / block.file).parent.mkdir(exist_ok=True)
            (tmp_path / block.file).write_text(block.code, "utf-8")
    with importable(tmp_path):
        for block in found:
            run_block(page, block, monkeypatch)


def run_block(page: Path, block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a block, or parse it if it is data."""
    if block.language == "python" and reason(page, block.code) is None:
        lines_before = "\n" * (block.line - 1)  # a traceback has the page's line numbers
        code = compile(lines_before + placed(block.code), str(page), "exec")
        exec(code, {"__name__": "block"})  # noqa: S102
    elif block.language == "toml":
        tomllib.loads(block.code)
    elif block.language == "json":
        json.loads(block.code)
    for command in block.commands if block.language == "console" else ():
        why = reason(page, command)
        if why is None:
            run_command(command)
        elif why is NO_DATA:
            with monkeypatch.context() as patched:
                parse_command(command, patched)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_code_hides(page: Path) -> None:
    for block in blocks(page):
        assert block.language in LANGUAGES, f"line {block.line}: say the language"
        if block.language == "text":
            assert not re.search(r"^(\$|fsb|uv|pip|import|from) ", block.code, re.MULTILINE)
        if block.language == "console":
            assert block.commands, f"line {block.line}: no command behind a $"
    assert [line for line in outside(page) if line.startswith("    ")] == []


def test_every_exception_is_needed() -> None:
    codes = [(page, c) for page in PAGES for b in blocks(page) for c in (b.code, *b.commands)]
    for where, what in NOT_RUN:
        assert any(
            re.fullmatch(where, name_of(page)) and re.fullmatch(what, code, re.DOTALL)
            for page, code in codes
        ), what


def test_there_are_pages_with_code() -> None:
    names = {name_of(page) for page in WITH_CODE}
    for folder in ("howto", "concepts"):
        for path in (ROOT / "docs" / folder).glob("*.md"):
            assert name_of(path) in names, f"{path.name} shows nothing that runs"
