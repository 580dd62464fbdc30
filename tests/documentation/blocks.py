"""The code blocks of the documentation: found, and run in a sandbox."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LANGUAGES = ("python", "console", "toml", "json", "text")


def pages() -> list[Path]:
    """Every page of the repository."""
    found = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
    for folder in ("benchmarks", "plugins"):
        found += sorted((ROOT / folder).rglob("*.md"))
    return [path for path in found if ".venv" not in path.parts]


def name_of(page: Path) -> str:
    """The path in the repository, as a test id."""
    return page.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Arguments:
        language: after the opening fence.
        code: between the fences.
        line: number of the first line of the code.
    """

    language: str
    code: str
    line: int

    @property
    def file(self) -> str | None:
        """The name of the file, if the first line is ``# path.suffix``."""
        named = re.match(r"# ([\w/-]+\.(?:py|toml))\n", self.code)
        return named[1] if named else None

    @property
    def commands(self) -> list[str]:
        """The commands after ``$``, on one line each, without comments."""
        joined = re.sub(r"\\\n\s*", "", self.code)
        lines = [line[2:] for line in joined.splitlines() if line.startswith("$ ")]
        return [shlex.join(shlex.split(line, comments=True)) for line in lines]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text("utf-8")
    return [
        Block(found[1], found[2], text[: found.start(2)].count("\n") + 1)
        for found in re.finditer(r"^```(.*?)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]


def outside(page: Path) -> list[str]:
    """The lines of a page outside of fenced blocks."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return text.splitlines()
