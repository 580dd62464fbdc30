"""Write ``docs/concepts/trust.md``: ``python tests/honesty/page.py``.

The guarantee is the first paragraph of a test file's docstring, or all of it; below it is the first
sentence of each test, which is what the test does.
"""

from __future__ import annotations

import ast
from pathlib import Path

HERE = Path(__file__).parent
EXHAUSTIVE = "pytest.mark.exhaustive"
PAGE = HERE.parents[1] / "docs/concepts/trust.md"
GROUPS = {
    "The weights and what was read": ("weights", "evaluated_again", "inputs", "class_names"),
    "Training": ("running_statistics", "hidden_state", "nothing_to_train", "precision"),
    "The test": ("overlap", "looking_at_test", "samplers", "open_sampling", "class_intervals"),
    "Comparisons": ("same_content", "unfair_tables", "controls", "protocols"),
    "Plugins": ("false_declarations",),
}
HEAD = """# Guarantees and their tests

A number that fewshot-bench reports is right, or the report says what is wrong with it. This page
lists what is guaranteed, and the tests of each guarantee. Each test makes a fault (a plugin with a
false declaration, a file that was moved or swapped, a class in two splits) and asserts that it is
detected. The page is generated from these tests by `python tests/honesty/page.py`. They run with
`uv run pytest tests/honesty`; those marked *exhaustive*, and most cases of those marked *partly
exhaustive*, run with `-m exhaustive`.

After a fault, a command ends with exit code 2 and one line, or, if the number still means
something, with a note in the record and a mark in every table. The limits of detection are stated
as well.

```python
import fewshot_bench

record = fewshot_bench.run("nearest-centroid", dataset="glyphs", way=5, shot=1, episodes=20)
again = fewshot_bench.evaluate(f"runs/{record['id']}")
assert again["test"]["accuracy"] == record["test"]["accuracy"]
```
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, names in GROUPS.items():
        parts.append(f"## {title}\n")
        parts += [section(HERE / f"test_{name}.py") for name in names]
    return "\n".join(parts)


def section(file: Path) -> str:
    """The section of a file: its guarantee and its tests."""
    module = ast.parse(file.read_text("utf-8"))
    guarantee = ast.get_docstring(module) or ""
    first, _, rest = guarantee.partition("\n\n")
    if rest:
        title, body = plain(first).rstrip("."), "\n\n".join(map(plain, rest.split("\n\n")))
    else:
        title, body = plain(first).partition(": ")[0].rstrip("."), plain(first)
    rows = [f"| {what} | `{name}`{mark} |" for name, what, mark in tests_of(module)]
    table = "\n".join(["| case | test |", "|---|---|", *rows])
    return f"### {title}\n\n{body}\n\n{table}\n\nIn `tests/honesty/{file.name}`.\n"


def tests_of(module: ast.Module) -> list[tuple[str, str, str]]:
    """Name, first sentence and mark of each test."""
    found = []
    # Functions that return the cases of a test, most of them marked as exhaustive.
    cases = {
        f"{node.name}()"
        for node in module.body
        if isinstance(node, ast.FunctionDef) and EXHAUSTIVE in ast.unparse(node)
    }
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            what = plain((ast.get_docstring(node) or "").partition("\n\n")[0]).replace("|", "\\|")
            decorators = {ast.unparse(one) for one in node.decorator_list}
            some = any(case in one for case in cases for one in decorators)
            mark = " *partly exhaustive*" if some else ""
            mark = " *exhaustive*" if EXHAUSTIVE in decorators else mark
            found.append((node.name, what, mark))
    return found


def plain(text: str) -> str:
    """A paragraph on one line, with Markdown code marks."""
    return " ".join(text.split()).replace("``", "`")


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
