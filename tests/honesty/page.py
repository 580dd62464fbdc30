"""Makes ``docs/concepts/trust.md``: ``python tests/honesty/page.py`` writes it anew.

The guarantee is the first paragraph of a test file's docstring, or all of it, and below it stands
what its tests plant: the first sentence of each.
"""

from __future__ import annotations

import ast
from pathlib import Path

HERE = Path(__file__).parent
SLOW = "pytest.mark.slow"
PAGE = HERE.parents[1] / "docs/concepts/trust.md"
GROUPS = {
    "The weights and what was read": ("weights", "evaluated_again", "inputs", "class_names"),
    "Training": ("running_statistics", "hidden_state", "nothing_to_train", "precision"),
    "The test": ("overlap", "looking_at_test", "samplers", "open_sampling", "class_intervals"),
    "Comparisons": ("same_content", "unfair_tables", "controls", "protocols"),
    "Plugins": ("false_declarations",),
}
HEAD = """# What a number can be trusted for

A number that comes out of fewshot-bench is right, or says what is wrong with it. This page lists
what is guaranteed, and by which tests: each plants a fault (a plugin that lies, a file that was
moved or swapped, a class in two splits) and asserts that the number does not come out in silence.
It is made from those tests (`python tests/honesty/page.py` writes it anew), which run with
`uv run pytest tests/honesty`; those marked *slow*, and most cases of those marked *partly slow*,
run with `-m slow`.

Where something goes wrong, a command ends with exit code 2 and one line, or, if the number still
means something, a note in the record and a mark in every table. What cannot be known is said here
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
    """The guarantee of a file and its tests."""
    module = ast.parse(file.read_text("utf-8"))
    guarantee = ast.get_docstring(module) or ""
    first, _, rest = guarantee.partition("\n\n")
    if rest:
        title, body = plain(first).rstrip("."), "\n\n".join(map(plain, rest.split("\n\n")))
    else:
        title, body = plain(first).partition(": ")[0].rstrip("."), plain(first)
    rows = [f"| {what} | `{name}`{mark} |" for name, what, mark in tests_of(module)]
    table = "\n".join(["| planted | test |", "|---|---|", *rows])
    return f"### {title}\n\n{body}\n\n{table}\n\nIn `tests/honesty/{file.name}`.\n"


def tests_of(module: ast.Module) -> list[tuple[str, str, str]]:
    """Name, first sentence and mark of each test."""
    found = []
    # A function that gives the cases of a test, most of them with the mark.
    cases = {
        f"{node.name}()"
        for node in module.body
        if isinstance(node, ast.FunctionDef) and SLOW in ast.unparse(node)
    }
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            what = plain((ast.get_docstring(node) or "").partition("\n\n")[0]).replace("|", "\\|")
            decorators = {ast.unparse(one) for one in node.decorator_list}
            some = any(case in one for case in cases for one in decorators)
            mark = " *slow*" if SLOW in decorators else " *partly slow*" if some else ""
            found.append((node.name, what, mark))
    return found


def plain(text: str) -> str:
    """A paragraph on one line, with Markdown's code marks."""
    return " ".join(text.split()).replace("``", "`")


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
