"""The page of a report: whole, escaped, and without a door to anything else."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fewshot_bench.errors import ConfigError
from fewshot_bench.report import PAGE, write_report
from fewshot_bench.report.page import DOWNLOADS, MOST_ROWS, MOST_TABLES, gallery, html
from fewshot_bench.results.comparison import Comparison, compare
from fewshot_bench.results.runs import load_runs
from tests.figures.drawn_runs import evaluated, keep_pictures, task, trained

HOSTILE = "<script>alert(1)</script>\" onload='x' {{ 7*7 }} </style> & \x1b[31m"
VOID = {"meta", "link", "input", "img", "br"}


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two methods in two settings, one of which trained and drew."""
    keep_pictures(trained(tmp_path, "alpha", players=("meta", "generator")))
    trained(tmp_path, "beta", right=[[2, 3], [1, 4], [2, 2], [3, 3]])
    evaluated(tmp_path, "alpha", shot=5)
    evaluated(tmp_path, "beta", shot=5, right=[[5, 5], [4, 5], [3, 4], [4, 4]])
    return tmp_path


def compared(runs: Path, baseline: str | None = "alpha") -> Comparison:
    return compare(load_runs([runs])[0], baseline, ranks=True)


def written(runs: Path, folder: Path) -> tuple[str, Page]:
    assert write_report(compared(runs), folder) == []
    text = (folder / PAGE).read_text("utf-8")
    return text, Page(text)


def test_the_page_has_everything(runs: Path, tmp_path: Path) -> None:
    text, page = written(runs, tmp_path / "report")
    assert [path.name for path in (tmp_path / "report").iterdir()] == [PAGE]
    captions = " ".join(page.texts["caption"])
    assert all(name in captions for name in ("Accuracy, %", "Against alpha", "Speed", "Settings"))
    told = " ".join(" ".join(page.texts["li"]).split())
    assert "On 2-way 1-shot, this trained beta is worse than this trained alpha by" in told
    assert "has the highest accuracy" in told
    # Two methods, two settings: four runs, each with its command.
    commands = page.texts["code"]
    assert sorted(commands) == ["fsb run alpha"] * 2 + ["fsb run beta"] * 2
    assert text.count("episodes_digest") == 4


def test_every_kind_of_picture_that_there_is_is_drawn_and_described(
    runs: Path, tmp_path: Path
) -> None:
    _, page = written(runs, tmp_path / "report")
    images = page.all("img")
    # forest, learning, time, classes, confusion, steps, settings, episode, generator
    assert len(images) == 9
    for image in images:
        assert "for alpha and beta on marks" in image["alt"]  # type: ignore[operator]
        kind, _, content = image["src"].partition(",")  # type: ignore[union-attr]
        assert kind == "data:image/svg+xml;base64"
        assert b"</svg>" in base64.b64decode(content)


def test_downloads_are_what_the_exporters_write(runs: Path, tmp_path: Path) -> None:
    _, page = written(runs, tmp_path / "report")
    links = {a["download"]: a["href"] for a in page.all("a") if "download" in a}
    comparison = compared(runs)
    assert list(links) == [file for _, file, _, _ in DOWNLOADS]
    for _, file, _, export in DOWNLOADS:
        content = base64.b64decode(links[file].partition(",")[2])  # type: ignore[union-attr]
        assert content.decode() == export(comparison)


def test_nothing_is_loaded_and_only_its_own_script_runs(runs: Path, tmp_path: Path) -> None:
    text, page = written(runs, tmp_path / "report")
    for _, attributes in page.elements:
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("data:", "#"))
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    policy = next(m["content"] for m in page.all("meta") if "http-equiv" in m)
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    for tag in ("style", "script"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_hostile_records_stay_text(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    evaluated(runs, "base", notes=[HOSTILE])
    folder = HOSTILE.replace("/", "").replace("\x1b", "")  # the name becomes part of the id
    evaluated(runs, folder, dataset_source=HOSTILE)
    page_text = html(compared(runs, None))
    page = Page(page_text)
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert "alert(1)" in "".join(page.texts["p"])
    assert "{{ 7*7 }}" in page_text
    assert not page.all("img")


def test_as_many_pictures_as_can_be_looked_at(tmp_path: Path) -> None:
    for i in range(MOST_ROWS + 2):
        evaluated(tmp_path, f"method-{i}", right=[[min(5, i), 3], [1, 2], [2, 2], [3, 3]])
    for query in range(1, MOST_TABLES + 1):
        evaluated(tmp_path, "other", task=task(query=query + 10))
    comparison = compared(tmp_path, "method-0")
    galleries, told = gallery(comparison)
    assert told == []
    assert len(galleries) == MOST_TABLES + 1
    assert not galleries[-1].pictures
    assert "fsb figure" in galleries[-1].omitted
    # The baseline, which is not among the best, is there beside them.
    assert galleries[0].omitted == f"Figures of {MOST_ROWS + 1} rows; 1 more are in the tables."
    assert "and 6 more" in galleries[0].pictures[0].alt


def test_a_folder_that_cannot_be_made(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot make .* give another folder with -o"):
        write_report(compared(runs), tmp_path / "file" / "report")
