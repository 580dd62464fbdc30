"""The page in a browser: it renders, sorts, filters, and asks nothing of anybody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fewshot_bench.report import PAGE, write_report
from fewshot_bench.results.comparison import compare
from fewshot_bench.results.runs import load_runs
from tests.figures.drawn_runs import evaluated, trained

pytestmark = pytest.mark.browser
HOSTILE = "<img src=x onerror=document.title='gone'>"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of three methods in two settings; a hostile name among them."""
    folder = tmp_path_factory.mktemp("browser")
    trained(folder / "runs", "alpha", accuracies=(0.5, 0.6, 0.75))
    trained(folder / "runs", "beta", right=[[2, 3], [1, 4], [2, 2], [3, 3]])
    evaluated(folder / "runs", "alpha", shot=5)
    evaluated(folder / "runs", "beta", shot=5, right=[[5, 5], [4, 5], [3, 4], [4, 4]])
    evaluated(folder / "runs", HOSTILE, shot=5, right=[[5, 1], [0, 0], [3, 4], [1, 0]])
    comparison = compare(load_runs([folder / "runs"])[0], "alpha", ranks=True)
    write_report(comparison, folder / "report")
    return folder / "report" / PAGE


class Opened:
    """A page that is open, and what it said and asked for."""

    def __init__(self, page: Any, path: Path) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(path.as_uri())

    def column(self, table: int, column: int) -> list[str]:
        """The texts of a column in the rows that are to be seen."""
        rows = self.page.locator("table.results").nth(table).locator("tbody tr:visible")
        cells = [row.locator("th, td").nth(column).inner_text() for row in rows.all()]
        return [text.strip() for text in cells]


@pytest.fixture
def opened(browser: Any, report: Path) -> Iterator[Opened]:
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    yield Opened(page, report)
    page.close()


def test_it_renders_and_asks_for_nothing(opened: Opened, report: Path) -> None:
    assert opened.page.title() == "alpha, beta and " + HOSTILE + " on marks"
    sizes = opened.page.eval_on_selector_all("img", "all => all.map(one => one.naturalWidth)")
    assert len(sizes) >= 6
    assert all(size > 100 for size in sizes)
    opened.page.wait_for_timeout(200)
    assert opened.said == []
    assert [url for url in opened.asked if not url.startswith("data:")] == [report.as_uri()]
    assert opened.page.locator(f"text={HOSTILE}").count() > 0


def test_tables_sort_by_keyboard(opened: Opened) -> None:
    head = opened.page.locator("table.results").first.locator("thead th").nth(2)
    before = opened.column(0, 2)
    head.locator("button").focus()
    opened.page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    values = [float(text.split()[0]) for text in opened.column(0, 2)]
    assert values == sorted(values, reverse=True)
    opened.page.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "ascending"
    values = [float(text.split()[0]) for text in opened.column(0, 2)]
    assert values == sorted(values)
    assert sorted(opened.column(0, 2)) == sorted(before)
    # What has no number comes last either way.
    first = opened.page.locator("table.results").first.locator("thead th").nth(1)
    for _ in range(2):
        first.locator("button").click()
        assert opened.column(0, 1)[-1] == ""
    assert head.get_attribute("aria-sort") == "none"


def test_rows_are_filtered_by_name_and_setting(opened: Opened) -> None:
    field = opened.page.get_by_label("Filter rows")
    field.fill("BETA")
    assert opened.column(0, 0) == ["beta"]
    assert opened.page.locator("#shown").inner_text().startswith("5 of ")
    assert opened.page.locator("details.run:visible").count() == 2
    field.fill("beta 5-shot")
    assert opened.page.locator("details.run:visible").count() == 1
    assert opened.column(1, 1) == ["2-way 5-shot"]
    field.fill("nothing of the kind")
    assert opened.column(0, 0) == []
    field.fill("")
    assert len(opened.column(0, 0)) == 3
    assert opened.page.locator("#shown").inner_text() == ""


def test_downloads_work_from_disk(opened: Opened) -> None:
    with opened.page.expect_download() as waiting:
        opened.page.get_by_role("link", name="CSV").click()
    assert waiting.value.suggested_filename == "comparison.csv"
    assert Path(waiting.value.path()).read_text("utf-8").startswith("protocol,setting,method")
    with opened.page.expect_download() as waiting:
        opened.page.get_by_role("link", name="Download as SVG").first.click()
    assert waiting.value.suggested_filename == "learning-1.svg"


def test_a_script_that_got_in_would_not_run(browser: Any, report: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    text = report.read_text("utf-8")
    evil = "<script>document.title = 'gone'</script><img src='x' onerror=\"document.title='gone'\">"
    broken.write_text(text.replace("<h1>", evil + "<h1>", 1), "utf-8")
    page = browser.new_page()
    with page.expect_console_message(lambda message: "Content Security Policy" in message.text):
        Opened(page, broken)
    page.wait_for_timeout(200)
    assert page.title() != "gone"
    page.close()


@pytest.mark.parametrize("width", [320, 390, 768])
def test_no_page_is_wider_than_its_screen(browser: Any, report: Path, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 700})
    page.goto(report.as_uri())
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_light_dark_and_print(browser: Any, report: Path) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto(report.as_uri())
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.emulate_media(color_scheme="light")
    assert (dark, page.evaluate(background)) == ("rgb(22, 24, 27)", "rgb(255, 255, 255)")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    assert page.pdf().startswith(b"%PDF")
    page.close()


def test_without_its_script_the_page_is_whole(browser: Any, report: Path) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(report.as_uri())
    assert not page.get_by_label("Filter rows").is_visible()
    assert page.locator("table.results tbody tr").first.is_visible()
    page.close()


def test_everything_is_reached_by_tab(opened: Opened) -> None:
    opened.page.keyboard.press("Tab")
    assert opened.page.evaluate("document.activeElement.textContent") == "Skip to the results"
    opened.page.keyboard.press("Enter")
    opened.page.wait_for_function("document.activeElement.id == 'main'")
    seen = set()
    for _ in range(120):
        opened.page.keyboard.press("Tab")
        seen.add(opened.page.evaluate("document.activeElement.tagName"))
    assert {"BUTTON", "A", "SUMMARY", "DIV"} <= seen
