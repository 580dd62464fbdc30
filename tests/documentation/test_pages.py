"""What pages show does what they say of it, and their links lead somewhere."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fewshot_bench
from fewshot_bench import testing
from tests.documentation.blocks import ROOT, blocks, name_of, outside, pages

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
