"""Tables for a screen of a given width."""

import re
import textwrap
from collections.abc import Callable
from itertools import chain

from fewshot_bench.results.blocks import Block, Entry, blocks
from fewshot_bench.results.comparison import Comparison
from fewshot_bench.results.sentences import BOLD, SEEN, apart, heading

GAP = 2  # between columns
BEST = "^"  # beside bold, which a pipe or a file does not show
MOST_TOLD = 12  # sentences below a table
TOGETHER = re.compile(r" (?=%)|(?<=\bp) (?=[<=])|(?<=p [<=]) ")
Style = Callable[[str, str], str]


def terminal(comparison: Comparison, width: int, style: Style) -> str:
    """Every table in lines of at most ``width`` characters, from 40 on.

    ``style`` maps (text, ``bold``, ``dim``, ``head``, ``heading`` or empty) to the styled text.
    """
    lines: list[str] = []
    for table in comparison.tables:
        lines += [style(line, "heading") for line in _folded(heading(table), width)]
        lines += chain.from_iterable(_folded(text, width) for text in apart(table))
        for block in blocks(table, comparison):
            lines += ["", *_block(block, width, style)]
        lines.append("")
    return "\n".join(lines)


def _block(block: Block, width: int, style: Style) -> list[str]:
    lines: list[str] = []
    columns, dropped = _fitting(block, width)
    for part in columns:
        lines += ([""] if lines else []) + _lines(block, part, width, style)
    words = [text.replace(BOLD, f"Bold, {BEST}:", 1) for text in block.notes]
    if heads := ", ".join(dropped):
        words.append(f"No room for: {heads}; a wider terminal or --format csv has them.")
    findings = block.findings[:MOST_TOLD]
    if len(block.findings) > MOST_TOLD:
        findings.append(f"... and {len(block.findings) - MOST_TOLD} more; --format json has all.")
    for text in findings:
        first, *more = _folded(text, width - 2)
        lines += [f"- {first}", *(f"  {line}" for line in more)]
    return lines + [style(line, "dim") for line in _folded(" ".join(words), width)]


def _fitting(block: Block, width: int) -> tuple[list[list[int]], list[str]]:
    """Columns that fit beside each other, in several parts if need be; heads left out.

    Of a block with optional columns those are left out; others go on below.
    """
    widths = _widths(block)
    name = min(widths[0], max(width // 3, 12))  # a longer one is folded
    columns, dropped = list(range(1, len(block.heads))), list[str]()
    if block.optional is not None:
        for head in block.optional:
            if name + sum(widths[i] + GAP for i in columns) <= width:
                break
            if head in block.heads:
                columns.remove(block.heads.index(head))
                dropped.append(head)
    parts: list[list[int]] = [[]]
    for i in columns:  # what finds no room goes on below
        if parts[-1] and name + sum(widths[j] + GAP for j in [*parts[-1], i]) > width:
            parts.append([])
        parts[-1].append(i)
    return parts, dropped


def _widths(block: Block) -> list[int]:
    """Of each column: as wide as its entries, and as the longest word of its head."""
    indent = [2 if len(block.sections) > 1 else 0] + [0] * (len(block.heads) - 1)
    return [
        max(
            max(map(len, head.split() if i else [head])),
            *(len(line[i].text) + indent[i] for line in block.lines),
        )
        + max(len(_marks(line[i])) for line in block.lines)
        for i, head in enumerate(block.heads)
    ]


def _marks(entry: Entry) -> str:
    marks = {"tied": "*", "best": BEST}.get(entry.mark, "") + ("†" if entry.dagger else "")
    marks += SEEN if entry.seen else ""
    return f" {marks}" if marks else ""


def _lines(block: Block, columns: list[int], width: int, style: Style) -> list[str]:
    """Heads and entries of some columns, the names of the rows in front."""
    widths = _widths(block)
    shown = [widths[i] for i in columns]
    name = max(min(widths[0], width - sum(shown) - GAP * len(shown)), 8)
    heads = [_folded(block.heads[i], widths[i]) for i in columns]
    first = _folded(block.heads[0], name)
    deep = max(map(len, [first, *heads]))
    filled = [[""] * (deep - len(head)) + head for head in [first, *heads]]
    gap, lines = " " * GAP, list[str]()
    for start, *more in zip(*filled, strict=True):
        texts = [text.rjust(wide) for text, wide in zip(more, shown, strict=True)]
        lines.append(style(gap.join([start.ljust(name), *texts]).rstrip(), "head"))
    # Marks follow the numbers, which stay aligned.
    after = {i: max(len(_marks(line[i])) for line in block.lines) for i in columns}
    for section, entries in block.sections.items():
        lines += [style(section, "dim")] if section else []
        indent = "  " if section else ""
        for line in entries:
            start, *more = _folded(line[0].text, name - len(indent))
            texts = []
            for i in columns:
                entry, room = line[i], widths[i] - after[i]
                text = entry.text.rjust(room) + _marks(entry).ljust(after[i])
                texts.append(style(text, "bold" if entry.mark == "best" else ""))
            lines.append(gap.join([f"{indent}{start}".ljust(name), *texts]).rstrip())
            lines += [f"{indent}  {text}" for text in more]
    return lines


def _folded(text: str, width: int) -> list[str]:
    """Lines of at most ``width`` characters, at least one; a number stays with its unit or p."""
    text = TOGETHER.sub("\N{NO-BREAK SPACE}", text)
    lines = textwrap.wrap(text, width, break_on_hyphens=False) or [""]
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]
