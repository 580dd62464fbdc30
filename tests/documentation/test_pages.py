"""Examples of pages work, and their links and references are valid."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fewshot_bench
from fewshot_bench import testing
from tests.documentation.blocks import ROOT, blocks, name_of, outside, pages
from tests.test_architecture import ORDER

TINY = {
    "dataset": "glyphs",
    "train_classes": 10,
    "validation_classes": 6,
    "test_classes": 6,
    "steps": 2,
    "episodes": 3,
    "query": 2,
    "validation_episodes": 2,
}


def test_the_plugin_of_the_guide_runs(
    tmp_path: Path, fake_distribution: Callable[..., Path]
) -> None:
    site = fake_distribution("my-method", "my_method", "")
    (site / "my_method.py").unlink()
    for block in blocks(ROOT / "docs/plugins.md"):
        if block.file:
            path = site / block.file
            path.parent.mkdir(exist_ok=True)
            path.write_text(block.code, "utf-8")
    assert {p.name for p in (site / "my_method").glob("*.py")} == {"__init__.py", "cosine.py"}
    settings = TINY | {"runs_dir": str(tmp_path / "runs"), "cache_dir": str(tmp_path / "cache")}
    record = fewshot_bench.run("cosine", scale=5.0, way=3, shot=1, **settings)
    assert record["plugin"]["distribution"] == "my-method"
    assert record["config"]["method_options"] == {"scale": 5.0}
    for name in [name for name in sys.modules if name.split(".")[0] == "my_method"]:
        del sys.modules[name]


def test_the_method_of_the_readme_works() -> None:
    (code,) = (b.code for b in blocks(ROOT / "README.md") if "class NearestMean" in b.code)
    space: dict = {}
    exec(code, space)  # noqa: S102
    episode = testing.tiny_episode(way=3, shot=2, query=2, tasks=2)
    method = space["NearestMean"](fewshot_bench.Task(3, 2, 2))
    logits = method.predict(method.adapt(episode.support), episode.query)
    assert logits.shape == (2, 6, 3)


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", "\n".join(outside(page))):
        if "://" not in target:
            assert (page.parent / target).exists(), target


REFERENCE = re.compile(r"`((?:[\w.-]+/)*[\w.-]+(?:\.py|\.toml|/))(?:::([\w.]+))?`")


def symbols(tree: ast.AST, prefix: str = "") -> Iterator[str]:
    """The functions, classes and constants of a module, and the members of its classes."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from symbols(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (prefix + name.id for name in targets if isinstance(name, ast.Name))


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_every_file_and_symbol_that_a_page_names_exists(page: str) -> None:
    references = REFERENCE.findall("\n".join(outside(ROOT / page)))
    assert len(references) > 10
    for name, symbol in references:
        if "my_method" in name:  # to be written by the reader
            continue
        path = next((p for p in (ROOT / name, ROOT / "fewshot_bench" / name) if p.exists()), None)
        assert path is not None, name
        assert not symbol or symbol in set(symbols(ast.parse(path.read_text("utf-8")))), symbol


def test_the_picture_of_the_rooms_names_every_room() -> None:
    picture = (ROOT / "docs/images/architecture.svg").read_text("utf-8")
    assert set(ORDER) - {"__main__"} <= set(re.findall(r">(\w+)</text>", picture))
