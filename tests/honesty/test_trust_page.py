"""The page on trust is made from these tests, and complete."""

from __future__ import annotations

import ast

from tests.honesty import page


def test_the_page_is_up_to_date() -> None:
    assert page.PAGE.read_text("utf-8") == page.page(), "run python tests/honesty/page.py"


def test_every_file_and_test_is_on_it() -> None:
    files = {file.stem.removeprefix("test_") for file in page.HERE.glob("test_*.py")} - {
        "trust_page"
    }
    assert files == {name for names in page.GROUPS.values() for name in names}
    for name in sorted(files):
        module = ast.parse((page.HERE / f"test_{name}.py").read_text("utf-8"))
        assert ast.get_docstring(module), name
        assert all(what for _, what, _ in page.tests_of(module)), name
