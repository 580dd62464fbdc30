"""Hooks of mkdocs: pages from outside of docs/, and the links between all pages.

The files stay where a reader of the repository expects them, with links that work there. Links
between pages are rewritten for the site; a link to a file that is not a page becomes plain text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
RESULTS = "benchmarks/results"
# {file of the repository: page of the site} outside of docs/ and the results.
ELSEWHERE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "results/benchmarks.md",
    "benchmarks/peers/README.md": "results/peers.md",
}
INDEX = "results/index.md"
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def results() -> dict[str, str]:
    """{file of the repository: page of the site} of the results, the newest first."""
    names = sorted((path.name for path in (ROOT / RESULTS).glob("*.md")), reverse=True)
    return {f"{RESULTS}/{name}": f"results/{name}" for name in names}


def pages() -> dict[str, str]:
    """{file of the repository: page of the site} of every page outside of docs/."""
    return ELSEWHERE | results()


def title_of(path: str) -> str:
    """The first heading of a file."""
    return (ROOT / path).read_text("utf-8").split("\n", 1)[0].removeprefix("# ")


def index_of_results() -> str:
    """The page that lists the results."""
    rows = [f"- [{title_of(path)}]({posixpath.basename(page)})" for path, page in results().items()]
    intro = (
        "# Results\n\nMeasured results, the newest first, each with its commands, hardware and "
        "versions.\n[How they are measured](benchmarks.md). An example of a comparison: "
        "[four methods on Omniglot](../examples/omniglot/about.md).\n"
    )
    return "\n".join([intro, *rows, ""])


def relink(text: str, path: str, page: str) -> str:
    """The text with links between files of the repository as links between pages.

    Arguments:
        text: Markdown.
        path: file of the repository that contains it.
        page: page of the site.
    """
    found = pages()

    def replace(link: re.Match[str]) -> str:
        label, target, anchor = link[1], link[2], link[3] or ""
        if "://" in target or target.startswith(("mailto:", "/")):
            return link[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if file == RESULTS:
            goal = INDEX
        elif file in found:
            goal = found[file]
        elif file.startswith("docs/"):
            goal = file.removeprefix("docs/")
        elif (ROOT / file).exists():
            return label
        else:
            return link[0]  # broken: mkdocs reports it
        return f"[{label}]({posixpath.relpath(goal, posixpath.dirname(page) or '.')}{anchor})"

    return LINK.sub(replace, text)


def on_config(config: Any) -> Any:
    """List every result in the navigation."""
    for item in config["nav"]:
        if "Results" in item:
            item["Results"] = [
                {"All results": INDEX},
                *({title_of(path): page} for path, page in results().items()),
                {"How they are measured": ELSEWHERE["benchmarks/README.md"]},
                {"Other libraries": ELSEWHERE["benchmarks/peers/README.md"]},
            ]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from outside of docs/."""
    texts = {page: (ROOT / path).read_text("utf-8") for path, page in pages().items()}
    for page, text in {**texts, INDEX: index_of_results()}.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Rewrite the links of a page."""
    name = page.file.src_uri
    if name == INDEX:
        return markdown
    paths = {page: path for path, page in pages().items()}
    return relink(markdown, paths.get(name, f"docs/{name}"), name)
