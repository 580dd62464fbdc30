"""Write the reference pages, which are generated from the code.

``uv run python -m docs._site.reference`` writes changed pages into docs/reference/, and removes
obsolete ones; a test fails if they are out of date. Other scripts write pages there, too.
"""

from __future__ import annotations

import os
from pathlib import Path

from docs._site import reference_api as api
from docs._site import reference_commands as commands
from docs._site import reference_record as record

FOLDER = Path(__file__).parents[1] / "reference"
HEAD = "<!-- Made by docs/_site/reference.py; a change here would be lost. -->\n\n"


def pages() -> dict[str, str]:
    """{path below docs/reference/: content}, of fewshot-bench without other plugins."""
    chosen = os.environ.get("FSB_PLUGINS")
    os.environ["FSB_PLUGINS"] = "fewshot-bench"  # without other installed plugins
    try:
        found = {
            "cli.md": commands.command_line(),
            "run.md": commands.run(),
            "record.md": record.page(),
        }
    finally:
        del os.environ["FSB_PLUGINS"]
        if chosen is not None:
            os.environ["FSB_PLUGINS"] = chosen
    found |= {f"api/{name}.md": api.page(content) for name, content in api.PAGES.items()}
    pages = {path: HEAD + text for path, text in found.items()}
    return pages | {"record.schema.json": record.schema()}


def _made() -> list[Path]:
    """The files of this script; other pages of the folder have scripts of their own."""
    pages = [path for path in FOLDER.rglob("*.md") if path.read_text("utf-8").startswith(HEAD)]
    return pages + list(FOLDER.rglob("*.json"))


def main() -> None:
    """Write them."""
    wanted = pages()
    for path in _made():
        if path.relative_to(FOLDER).as_posix() not in wanted:
            path.unlink()
            print("removed", path.name)
    for name, text in wanted.items():
        target = FOLDER / name
        if not target.exists() or target.read_text("utf-8") != text:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, "utf-8")
            print("wrote", name)


if __name__ == "__main__":
    main()
