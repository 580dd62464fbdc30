"""The reference pages are up to date and complete."""

from __future__ import annotations

import re

import pytest
import typer

import fewshot_bench
from docs._site import reference
from docs._site.docstrings import markdown
from fewshot_bench.cli.main import app

HOW_TO_FIX = "run: uv run python -m docs._site.reference"


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """The pages as generated now."""
    return reference.pages()


def test_the_pages_are_current(pages: dict[str, str]) -> None:
    there = {
        path.relative_to(reference.FOLDER).as_posix(): path.read_text("utf-8")
        for path in reference._made()
    }
    assert sorted(there) == sorted(pages), HOW_TO_FIX
    for name, text in pages.items():
        assert there[name] == text, f"{name}: {HOW_TO_FIX}"


def test_every_command_has_a_section(pages: dict[str, str]) -> None:
    root = typer.main.get_command(app)
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        for inner in getattr(command, "commands", {"": None}):
            if name != "run":
                assert f"## fsb {name} {inner}".strip() in pages["cli.md"]


def test_what_plugin_authors_import_is_there(pages: dict[str, str]) -> None:
    headings = set(re.findall(r"^## (\S+)$", "\n".join(pages.values()), re.MULTILINE))
    elsewhere = {"hookimpl", "__version__"}  # docs/hooks.md, 'fsb --version'
    assert set(fewshot_bench.__all__) - elsewhere <= headings


def test_nothing_of_this_machine_is_in_them(pages: dict[str, str]) -> None:
    for text in pages.values():
        assert not re.search(r" at 0x|/home/|/root/|site-packages", text)


def test_a_docstring_becomes_markdown() -> None:
    said = """Take the ``mean`` of way*shot numbers.

    Two lines of
    prose::

        as it *is*

    Arguments:
        level: of :class:`Interval`,
            in (0, 1).

    Raises:
        ValueError: none.
    """
    assert markdown(said) == (
        "Take the `mean` of way\\*shot numbers.\n\n"
        "Two lines of\nprose:\n\n```text\nas it *is*\n```\n\n"
        "**Arguments**\n\n- `level`: of `Interval`,\n  in (0, 1).\n\n"
        "**Raises**\n\n- `ValueError`: none."
    )
