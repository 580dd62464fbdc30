"""The code of the README and of docs/ runs, and their links lead somewhere."""

import re
import sys
from pathlib import Path

import pytest

import fewshot_bench
from fewshot_bench import testing

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks/README.md"]
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


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code blocks of a page."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.DOTALL)


def test_the_plugin_of_the_guide_runs(tmp_path, monkeypatch, fake_distribution) -> None:
    site = fake_distribution("my-method", "my_method", "")
    (site / "my_method.py").unlink()
    for code in blocks(ROOT / "docs/plugins.md", "python"):
        named = re.match(r"# (my_method/\w+\.py)\n", code)
        if named:
            path = site / named[1]
            path.parent.mkdir(exist_ok=True)
            path.write_text(code, "utf-8")
    assert {p.name for p in (site / "my_method").glob("*.py")} == {"__init__.py", "cosine.py"}
    settings = TINY | {"runs_dir": str(tmp_path / "runs"), "cache_dir": str(tmp_path / "cache")}
    record = fewshot_bench.run("cosine", scale=5.0, way=3, shot=1, **settings)
    assert record["plugin"]["distribution"] == "my-method"
    assert record["config"]["method_options"] == {"scale": 5.0}
    for name in [name for name in sys.modules if name.split(".")[0] == "my_method"]:
        del sys.modules[name]


def test_the_method_of_the_readme_works() -> None:
    code = next(b for b in blocks(ROOT / "README.md", "python") if "class NearestMean" in b)
    space: dict = {}
    exec(code, space)  # noqa: S102
    episode = testing.tiny_episode(way=3, shot=2, query=2, tasks=2)
    method = space["NearestMean"](fewshot_bench.Task(3, 2, 2))
    logits = method.predict(method.adapt(episode.support), episode.query)
    assert logits.shape == (2, 6, 3)


def test_the_readme_python_example_runs(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    code = next(b for b in blocks(ROOT / "README.md", "python") if "fewshot_bench.run(" in b)
    exec(code, {})  # noqa: S102
    accuracy, half_width = map(float, capsys.readouterr().out.split())
    assert 0.2 < accuracy <= 1
    assert 0 < half_width < 0.2


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target
