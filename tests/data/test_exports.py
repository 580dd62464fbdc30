"""What plugins import from a room: every name is there, and type checkers see the same modules."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[2] / "docs/reference/api"
REFERENCE = "".join(page.read_text("utf-8") for page in PAGES.glob("*.md"))


@pytest.mark.parametrize("room", ["data", "sampling"])
def test_every_exported_name_is_where_the_room_says_and_documented(room: str) -> None:
    package = importlib.import_module(f"fewshot_bench.{room}")
    tree = ast.parse(Path(str(package.__file__)).read_text("utf-8"))
    keywords = [k for n in ast.walk(tree) if isinstance(n, ast.Call) for k in n.keywords]
    for keyword in keywords:
        module = importlib.import_module(f"fewshot_bench.{room}.{keyword.arg}")
        for name in ast.literal_eval(keyword.value).split():
            assert getattr(package, name) is getattr(module, name)
            assert f"\n## {name}\n" in REFERENCE, f"{name} is not documented"
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    stars = {n.module for n in imports if n.names[0].name == "*"}
    assert stars == {f"fewshot_bench.{room}.{keyword.arg}" for keyword in keywords} != set()


@pytest.mark.parametrize("room", ["data", "sampling", "utils"])
def test_a_room_imports_no_torch_until_it_is_used(room: str) -> None:
    script = f"import sys, fewshot_bench.{room}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_an_unknown_name_is_an_import_error() -> None:
    with pytest.raises(ImportError, match="no_such_name"):
        from fewshot_bench.data import no_such_name  # type: ignore[attr-defined]  # noqa: F401
