"""The tutorial's page shows the files of its distribution, and its method is short."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.documentation.blocks import ROOT, blocks

PAGE = ROOT / "docs/tutorial/index.md"
DISTRIBUTION = ROOT / "docs/tutorial/first-method"


def files() -> dict[str, str]:
    """The source files, without the leftovers of an installation."""
    found: dict[str, str] = {}
    for pattern in ("*.toml", "first_method/*.py", "tests/*.py"):
        for path in DISTRIBUTION.glob(pattern):
            found[path.relative_to(DISTRIBUTION).as_posix()] = path.read_text("utf-8")
    return found


def test_the_page_shows_every_file_as_it_is() -> None:
    shown = [block.code for block in blocks(PAGE) if block.language in ("python", "toml")]
    assert sorted(shown) == sorted(files().values())
    text = PAGE.read_text("utf-8")
    for name, content in files().items():
        before = text[: text.index(content)]
        assert f"`{name}`" in before.rsplit("```", 2)[-2], f"{name} is not named before its code"


def test_the_method_has_at_most_25_lines_with_docstrings() -> None:
    source = files()["first_method/method.py"]
    assert sum(1 for line in source.splitlines() if line.strip()) <= 25
    (method,) = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    assert ast.get_docstring(method)
    public = [n for n in method.body if isinstance(n, ast.FunctionDef) if n.name[0] != "_"]
    assert [node.name for node in public] == ["adapt", "predict"]
    assert all(ast.get_docstring(node) for node in public)


def test_a_method_written_by_the_command_has_the_same_frame() -> None:
    templates = ROOT / "fewshot_bench/hooks/templates"
    written = {p.name.removesuffix(".in") for p in templates.rglob("*.in")}
    assert {Path(name).name for name in files()} <= written | {"method.py"}
