"""Docstrings of this project as Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

# Sections whose lines are "name: text"; the others are prose.
LISTS = ("Arguments:", "Raises:", "Class attributes:", "Attributes:")
PROSE = ("Returns:", "Yields:")


def markdown(docstring: str) -> str:
    """A docstring as Markdown: sections, lists, literal blocks and code."""
    return "\n\n".join(_parts(inspect.cleandoc(docstring).split("\n"))).strip()


def text(line: str) -> str:
    """Prose, with the characters escaped that Markdown would interpret."""
    pieces = re.split(r"(``.+?``|:\w+:`.+?`)", line)
    return "".join(_code(piece) if i % 2 else _plain(piece) for i, piece in enumerate(pieces))


def _code(piece: str) -> str:
    return "`" + piece.strip("`").partition(":`")[2] + "`" if piece[0] == ":" else piece[1:-1]


def _plain(piece: str) -> str:
    return re.sub(r"(?<!^)\*(?! )|__", lambda m: "\\" + "\\".join(m[0]), piece).replace("<", "&lt;")


def _parts(lines: list[str]) -> Iterator[str]:
    """Paragraph by paragraph; the indented lines after a heading belong to its section."""
    while lines:
        line = lines.pop(0)
        if line in LISTS or line in PROSE:
            body = inspect.cleandoc("\n".join(["", *_indented(lines)]))
            yield f"**{line.rstrip(':')}**"
            yield _list(body) if line in LISTS else text(body)
        elif line == "\b":  # the next paragraph keeps its line breaks
            yield _literal("\n".join(_paragraph(lines)))
        elif line.strip():
            prose = "\n".join(text(each) for each in [line, *_paragraph(lines)])
            if prose != "::":
                yield re.sub("::$", ":", prose)
            if prose.endswith("::"):
                yield _literal("\n".join(_indented(lines)))


def _indented(lines: list[str]) -> list[str]:
    """Take the lines that are empty or indented."""
    taken = []
    while lines and (not lines[0].strip() or lines[0].startswith(" ")):
        taken.append(lines.pop(0))
    return taken


def _paragraph(lines: list[str]) -> list[str]:
    """Take the lines up to an empty one or a heading."""
    taken = []
    while lines and lines[0].strip() and lines[0] not in (*LISTS, *PROSE):
        taken.append(lines.pop(0))
    return taken


def _literal(block: str) -> str:
    return f"```text\n{inspect.cleandoc(chr(10) + block)}\n```"


def _list(body: str) -> str:
    """``name: text`` lines, with their continuations, as a list."""
    items: list[str] = []
    for line in filter(str.strip, body.split("\n")):
        named = re.match(r"([\w, *]+): (.*)", line)
        if named and not line.startswith(" "):
            items.append(f"- `{named[1]}`: {text(named[2])}")
        else:
            items[-1] += "\n  " + text(line.strip())
    return "\n".join(items)
