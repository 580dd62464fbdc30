"""Tables for a README."""

import re

from fewshot_bench.results.blocks import Block, Entry, blocks
from fewshot_bench.results.comparison import Comparison
from fewshot_bench.results.sentences import SEEN, apart, heading


def markdown(comparison: Comparison) -> str:
    """A heading, and tables of accuracies, differences and times, for each protocol."""
    parts = []
    for table in comparison.tables:
        parts.append(f"**{_plain(heading(table))}**")
        parts += map(_plain, apart(table))
        for block in blocks(table, comparison):
            parts.append(_table(block))
            if block.findings:
                parts.append("\n".join(f"- {_plain(text)}" for text in block.findings))
            parts.append(_plain(" ".join(block.notes)))
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(block: Block) -> str:
    """Sections are a column of their own."""
    named = len(block.sections) > 1
    heads = (["setting"] if named else []) + list(map(_plain, block.heads))
    rows = [
        [section] * named + list(map(_cell, line))
        for section, entries in block.sections.items()
        for line in entries
    ]
    head, *lines = [f"| {' | '.join(texts)} |" for texts in (heads, *rows)]
    return "\n".join([head, "|---" * (1 + named) + "|--:" * (len(block.heads) - 1) + "|", *lines])


def _cell(entry: Entry) -> str:
    text = _plain(entry.text) + (" †" if entry.dagger else "") + (f" {SEEN}" if entry.seen else "")
    return {"best": f"**{text}**", "tied": rf"{text} \*"}.get(entry.mark, text)


# What makes a table, emphasis, code, a link, a picture, an entity or a tag ("< 5" begins none).
_SIGNS = re.compile(r"[\\|*`\[\]]|<(?=[A-Za-z/!?])|&(?=#?\w+;)")


def _plain(text: str) -> str:
    return _SIGNS.sub(r"\\\g<0>", text).replace("\n", " ")
