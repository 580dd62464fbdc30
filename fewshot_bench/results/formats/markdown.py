"""Tables for a README."""

from __future__ import annotations

import re

from fewshot_bench.results.blocks import Block, Entry, blocks
from fewshot_bench.results.comparison import Comparison
from fewshot_bench.results.record.told import SEEN
from fewshot_bench.results.sentences import apart, heading


def markdown(comparison: Comparison) -> str:
    """A heading, and tables of accuracies, differences and times, for each protocol."""
    parts = []
    for table in comparison.tables:
        parts.append(f"**{_plain(heading(table))}**")
        parts += map(_plain, apart(table))
        for block in blocks(table, comparison):
            parts.append(_table(block))
            if block.told:
                parts.append("\n".join(f"- {_plain(text)}" for text in block.told))
            parts.append(_plain(" ".join(block.words)))
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(block: Block) -> str:
    """Sections are a column of their own."""
    named = len(block.sections) > 1
    heads = (["setting"] if named else []) + list(map(_plain, block.heads))
    lines = [_line(heads), "|---" * (1 + named) + "|--:" * (len(block.heads) - 1) + "|"]
    for section, entries in block.sections.items():
        for line in entries:
            lines.append(_line([section] * named + list(map(_cell, line))))
    return "\n".join(lines)


def _line(texts: list[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _cell(entry: Entry) -> str:
    text = _plain(entry.text) + (" †" if entry.dagger else "") + (f" {SEEN}" if entry.seen else "")
    return {"best": f"**{text}**", "tied": rf"{text} \*"}.get(entry.mark, text)


# What makes a table, emphasis, code, a link, a picture, an entity or a tag ("< 5" begins none).
_SIGNS = re.compile(r"[\\|*`\[\]]|<(?=[A-Za-z/!?])|&(?=#?\w+;)")


def _plain(text: str) -> str:
    return _SIGNS.sub(r"\\\g<0>", text).replace("\n", " ")
