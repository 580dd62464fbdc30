"""The site builds without a warning, and its pages load nothing from the network."""

from __future__ import annotations

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

from tests.documentation.blocks import ROOT, name_of
from tests.loading import loaded

# The theme would announce its successor in every build.
QUIET = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    built = subprocess.run(words, cwd=ROOT, env=QUIET, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert built.stderr == ""
    return folder


@pytest.fixture(scope="module")
def hooks() -> Any:
    """The hooks of mkdocs, loaded by path as mkdocs does."""
    return loaded(ROOT / "docs/_site/hooks.py", "site_hooks")


class Links(HTMLParser):
    """What a page loads, its links, and its anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the links of a tag."""
        said = dict(attrs)
        self.anchors.add(said.get("id") or said.get("name") or "")
        if tag == "a" and said.get("href"):
            self.linked.append(said["href"] or "")
        elif tag == "link":
            self.loaded.append(said.get("href") or "")
        elif said.get("src"):
            self.loaded.append(said["src"] or "")


def read(page: Path) -> Links:
    """The links of a page."""
    links = Links()
    links.feed(page.read_text("utf-8"))
    return links


def test_the_pages_fetch_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        for url in read(page).loaded:
            assert not urlsplit(url).netloc, f"{page.name} loads {url}"
    for style in site.rglob("*.css"):
        text = style.read_text("utf-8")
        assert "@import" not in text
        assert "url(http" not in text


def test_every_link_and_anchor_of_the_built_pages_leads_somewhere(site: Path) -> None:
    pages = {page: read(page) for page in site.rglob("*.html") if page.name != "404.html"}
    for page, links in pages.items():
        for link in links.linked + links.loaded:
            path, anchor = urldefrag(unquote(link))
            if urlsplit(path).scheme or path.startswith("data:"):
                continue
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{page.name}: {link}"
            if anchor and not anchor.startswith("__") and target in pages:
                assert anchor in pages[target].anchors, f"{page.name}: {link}"


def test_every_page_of_the_docs_and_every_result_is_there(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        path = page.relative_to(ROOT / "docs").with_suffix(".html")
        assert (site / path).exists(), name_of(page)
    results = (site / "results/index.html").read_text("utf-8")
    for page in (ROOT / "benchmarks/results").glob("*.md"):
        assert (site / "results" / f"{page.stem}.html").exists()
        assert f'href="{page.stem}.html"' in results


def test_only_pages_and_what_they_show_are_published(site: Path) -> None:
    suffixes = {path.suffix for path in site.rglob("*") if path.is_file()}
    assert suffixes.isdisjoint({".py", ".toml", ".pyc", ".md"})


def test_links_of_the_repository_become_links_of_the_site(hooks: Any) -> None:
    def rewritten(
        text: str, path: str = "docs/howto/metric.md", page: str = "howto/metric.md"
    ) -> str:
        return hooks.relink(text, path, page)

    assert (
        rewritten("[b](../../benchmarks/README.md#items)") == "[b](../results/benchmarks.md#items)"
    )
    assert rewritten("[r](../../benchmarks/results)") == "[r](../results/index.md)"
    assert rewritten("[s](../statistics.md)") == "[s](../statistics.md)"
    assert rewritten("[license](../../LICENSE)") == "license"
    assert rewritten("[gone](../../gone.md)") == "[gone](../../gone.md)"  # mkdocs reports it
    assert rewritten("[x](https://example.org/a)") == "[x](https://example.org/a)"
    assert rewritten("[docs](docs/speed.md)", "README.md", "readme.md") == "[docs](speed.md)"


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1300])
def test_a_page_fits_its_window_and_asks_nothing_of_anybody(
    site: Path, browser: Any, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    for name in (
        "index",
        "tutorial/index",
        "reference/cli",
        "reference/wrong-plugins",
        "results/index",
    ):
        page.goto((site / f"{name}.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert page.locator("article h1").is_visible()
    page.close()
    assert [url for url in asked if urlsplit(url).scheme not in ("file", "data", "blob")] == []
    assert wrong == []
