"""The sampler of the episodes is named, and its declarations are tested.

A sampler of a plugin is named, with distribution, version, options and code, in the record, in
every heading and in every figure, and its results never share a table with those of another. "15
queries per class" is stated only if every class of every episode had 15. An "open" plan that uses
an image again, an episode that differs when it is drawn again, one with a class or an image in two
places, or with classes of several families where one was requested, is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import fewshot_bench
from fewshot_bench.config.options import load
from fewshot_bench.config.resolve import configure
from fewshot_bench.errors import ConfigError, PluginError, UnknownName
from fewshot_bench.figures import draw
from fewshot_bench.figures.classes import answers
from fewshot_bench.figures.series import run_names
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.report.page import html
from fewshot_bench.results.comparison import compare
from fewshot_bench.results.formats.data import to_json
from fewshot_bench.results.formats.markdown import markdown
from fewshot_bench.results.layout import episodes_differ
from fewshot_bench.results.pilots import pilot_of
from fewshot_bench.results.record import write_record
from fewshot_bench.results.runs import command_of, load_runs
from fewshot_bench.results.sentences import heading
from fewshot_bench.testing import check_sampler
from tests.honesty.tiny_folder import SETTINGS

SOURCE = '''
"""Samplers that are not what a heading expects."""

from dataclasses import replace
from typing import Annotated

import torch

from fewshot_bench.sampling.base import ClosedSampler, Indices


class Unequal(ClosedSampler):
    """The first class gets all queries but one for each other class."""

    def __init__(
        self, table, task, seed, *, within_family: bool = False,
        alpha: Annotated[float, "how unequal"] = 1.0, turned: bool = False,
    ):
        super().__init__(table, task, seed, within_family=within_family)
        self.alpha, self.turned = alpha, turned

    def __call__(self, ids):
        plain = super().__call__(ids)
        tasks, queries = plain.query.shape
        way = self.task.way
        target = torch.arange(queries).clamp(max=way - 1).flip(0).expand(tasks, -1)
        own = (torch.nn.functional.one_hot(target, way).cumsum(1) - 1).gather(
            2, target.unsqueeze(-1)).squeeze(-1)
        start = self.table.class_start[plain.class_ids]
        support = start.unsqueeze(-1) + torch.arange(self.task.shot)
        query = start.gather(1, target) + self.task.shot + own
        return Indices(support, query, target, None, plain.class_ids, plain.key)


class Same(ClosedSampler):
    """The closed sampler under another name."""


class FalselyOpen(ClosedSampler):
    sampling = "open"
    length = 50


class Nonsense(ClosedSampler):
    sampling = "fair"


class Moody(ClosedSampler):
    """Other episodes every time."""

    calls = 0

    def __call__(self, ids):
        type(self).calls += 1
        return super().__call__(ids + 1000 * self.calls)


class Late(ClosedSampler):
    """Well-behaved in the first episodes; later on the first query is a support image."""

    def __call__(self, ids):
        plain = super().__call__(ids)
        late = ids >= 300
        plain.query[late, 0] = plain.support[late, 0, 0]
        return plain


class OneClassTwice(ClosedSampler):
    def __call__(self, ids):
        plain = super().__call__(ids)
        ids_ = plain.class_ids.clone()
        ids_[:, 1] = ids_[:, 0]
        return replace(plain, class_ids=ids_)


class AnyFamily(ClosedSampler):
    """Passes over within_family."""

    def __init__(self, table, task, seed, *, within_family: bool = False):
        super().__init__(table, task, seed)
        self.asked = within_family

    def __call__(self, ids):
        asked, self.within_family = self.within_family, False
        drawn = super().__call__(ids)
        self.within_family = True
        return drawn
'''
OWN: dict[str, Any] = {
    **{n: v for n, v in SETTINGS.items() if n not in ("color", "backbone_channels", "steps")},
    "dataset": "glyphs", "train_classes": 4, "validation_classes": 4, "test_classes": 8,
    "way": 3, "query": 5, "episodes": 20, "alphabet_size": 4,
}  # fmt: skip
WITHOUT_VALIDATION = OWN | {"validation_classes": 0}

NAMES = ("Same", "FalselyOpen", "OneClassTwice", "AnyFamily", "Moody")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file of samplers."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(SOURCE, "utf-8")
    return tmp_path


def run(sampling: str, **changes: Any) -> dict[str, Any]:
    """A run of nothing but a test."""
    name = f"./mine.py:{sampling}" if sampling[0].isupper() else sampling
    return fewshot_bench.run("nearest-centroid", sampling=name, **WITHOUT_VALIDATION | changes)


def headings() -> list[str]:
    """Of the tables of all runs."""
    return [heading(table) for table in compare(load_runs([Path("runs")])[0]).tables]


def test_unequal_queries(home: Path) -> None:
    """A sampler of unequal queries is named in every heading, which does not claim 5 per class."""
    record = run("Unequal")
    sampler = record["sampler"]
    assert sampler["name"].endswith("Unequal")
    assert sampler["query"] == [1, 13]
    assert sampler["support"] == [1, 1]
    comparison = compare(load_runs([Path("runs")])[0])
    for text in (markdown(comparison), html(comparison), to_json(comparison)):
        assert "5 queries per class on average, of unequal classes" in text
        assert "5 queries per class," not in text
        assert "Unequal of file" in text
    (title,) = run_names(load_runs([Path("runs")])[0])
    assert title


def test_pictures_and_plans(home: Path) -> None:
    """A figure names the sampler below it, and a plan does not state queries per class."""
    run("Unequal")
    runs, _ = load_runs([Path("runs")])
    figure = draw("classes", runs)
    below = " ".join(" ".join(text.get_text() for text in figure.texts).split())
    assert "These are episodes drawn by mine.py:Unequal of file" in below
    pilot = pilot_of(runs)
    assert "5 queries per class on average, of unequal classes drawn by" in pilot.episodes_in_words
    assert pilot.falls is None
    of = answers(runs[0])
    assert of.overall.mean() == pytest.approx(runs[0].record["test"]["accuracy"])


def test_equal_queries_are_stated(home: Path) -> None:
    """The closed sampler is not named twice, and every class of every episode had its 5 queries."""
    record = run("closed")
    assert record["sampler"]["query"] == [5, 5]
    assert record["sampler"]["distribution"] == "fewshot-bench"
    assert headings() == ["glyphs (generated), 5 queries per class, 20 closed episodes"]


def test_another_name_is_another_table(home: Path) -> None:
    """A sampler that draws the same episodes under another name shares no table with it."""
    one, other = run("closed"), run("Same")
    assert one["episodes_digest"] == other["episodes_digest"]
    assert one["test"]["accuracy"] == other["test"]["accuracy"]
    assert len(headings()) == 2
    runs, _ = load_runs([Path("runs")])
    (why,) = episodes_differ(runs[1], runs[0])
    assert why.startswith("sampler ")
    assert len(set(run_names(runs))) == 2


def test_other_options_are_another_table(home: Path) -> None:
    """Options of a sampler are typed with its prefix, are in the record and separate tables."""
    one = run("Unequal", sampling_alpha=0.5)
    run("Unequal", sampling_alpha=2)
    assert one["sampler"]["options"] == {"alpha": 0.5, "turned": False}
    assert "--sampling-alpha 0.5" in command_of(one)
    found = headings()
    assert len(found) == 2
    assert any("alpha 0.5" in text for text in found)
    again = fewshot_bench.evaluate(f"runs/{one['id']}", trust_code=True)
    assert again["sampler"] == one["sampler"]
    assert again["test"]["accuracy"] == one["test"]["accuracy"]
    plain = fewshot_bench.evaluate(f"runs/{one['id']}", sampling="closed", trust_code=True)
    assert plain["sampler"]["options"] == {}
    with pytest.raises(UnknownName, match="no option named 'sampling_alpha'"):
        run("closed", sampling_alpha=0.5)
    with pytest.raises(ConfigError, match="--sampling-alpha: expected a number, got 'much'"):
        configure("nearest-centroid", sampling="./mine.py:Unequal", sampling_alpha="much")


def test_other_code_is_another_table(home: Path) -> None:
    """A sampler whose file has changed shares no table with its earlier version."""
    one = run("Same")
    (home / "mine.py").write_text(SOURCE + "\n\nMORE = 1\n", "utf-8")
    changed = run("Same", dataset="glyphs")
    if one["sampler"]["code"] == changed["sampler"]["code"]:  # imported once in a process
        path = Path("runs") / changed["id"]
        changed["sampler"]["code"] = "0" * 64
        write_record(path, changed)
    assert len(headings()) == 2


def test_a_plan_that_is_not_open(home: Path) -> None:
    """A sampler that declares an open plan and reuses images is refused before the test."""
    with pytest.raises(PluginError, match=r'declares sampling = "open", but uses .* images more'):
        run("FalselyOpen")
    with pytest.raises(PluginError, match="closed, open, got 'fair'"):
        run("Nonsense")
    assert not list(Path("runs").iterdir()) if Path("runs").exists() else True


def test_other_episodes_every_time(home: Path) -> None:
    """A sampler that gives other episodes when it is called again gives no result."""
    with pytest.raises(PluginError, match="different episodes when they were drawn again"):
        run("Moody")


def test_a_leak_in_later_episodes(home: Path) -> None:
    """A support image among the queries is found in every episode, not only in the first batch."""
    assert run("Late", episodes=300)["status"] == "completed"
    with pytest.raises(PluginError, match="one image twice in an episode"):
        run("Late", episodes=301)


def test_one_class_in_two_places(home: Path) -> None:
    """An episode that has one class twice is refused."""
    with pytest.raises(PluginError, match="one class twice in an episode"):
        run("OneClassTwice")


def test_families_that_were_requested(home: Path) -> None:
    """A sampler that ignores ``--within-family`` does not get the heading "of one family"."""
    with pytest.raises(PluginError, match="several families in one episode"):
        run("AnyFamily", within_family=True)


def test_the_check_suite_tests_declarations(home: Path) -> None:
    """``fsb check`` finds each of these samplers, and passes one that only has another name."""
    kinds = {name: load(Registry.discover(), "samplers", f"./mine.py:{name}") for name in NAMES}
    failed = {
        name: {o.id for o in check_sampler(kinds[name]) if o.status == "failed"} for name in NAMES
    }
    assert failed["Same"] == set()
    assert "used-once" in failed["FalselyOpen"]
    assert "valid" in failed["OneClassTwice"]
    assert "families" in failed["AnyFamily"]
    assert "pure" in failed["Moody"]
