"""Tables for a paper."""

import re
from collections.abc import Sequence

from fewshot_bench.results.blocks import Block, Entry, blocks
from fewshot_bench.results.comparison import Comparison, Table
from fewshot_bench.results.sentences import TIED, apart, heading

LETTERS = 58  # beside the names of rows, in the width of a page
STARTS = {
    "accuracy, %": "Accuracy in per cent on",
    "training": "Training of the rows on",
    "speed": "Speed on",
}


def latex(comparison: Comparison) -> str:
    """A ``table`` for each block of each protocol; wants the package booktabs."""
    parts = [r"% In the preamble: \usepackage{booktabs}"]
    for table in comparison.tables:
        parts += [_table(block, table) for block in blocks(table, comparison)]
    return "\n\n".join(parts) + "\n"


def _table(block: Block, table: Table) -> str:
    start = STARTS.get(block.heads[0], "Differences on")
    words = [text.replace(TIED, "Underlined:", 1) for text in block.notes]
    caption = " ".join([f"{start} {heading(table)}.", *apart(table), *words])
    heads = ["" if block.heads[0] in STARTS else block.heads[0], *block.heads[1:]]
    narrow = block.optional is not None  # many columns of few characters
    longest = max(len(line[0].text) for line in block.lines)
    folded = r"\raggedright " if longest > (20 if narrow else 32) else ""
    parts = _parts(block) if block.optional == () else [list(range(1, len(heads)))]
    tabulars = [_tabular(block, [0, *part], heads, folded, narrow=narrow) for part in parts]
    lines = [r"\begin{table}[tbp]", r"\centering", rf"\caption{{{tex(caption)}}}\smallskip"]
    if narrow:
        lines.append(r"\footnotesize\setlength{\tabcolsep}{3pt}")
    lines.append("\n\\par\\medskip\n".join(tabulars))
    if block.findings:
        lines += [r"\par\smallskip", r"\begin{minipage}{\linewidth}\footnotesize"]
        lines += [*(tex(text) + r"\par" for text in block.findings), r"\end{minipage}"]
    return "\n".join([*lines, r"\end{table}"])


def _parts(block: Block) -> list[list[int]]:
    """Columns that fit beside each other in ``LETTERS``; those of one part are in one tabular."""
    parts: list[list[int]] = [[]]
    room = 0
    for i, head in enumerate(block.heads[1:], 1):
        wide = 2 + max(*(len(line[i].text) for line in block.lines), *map(len, head.split()))
        if parts[-1] and wide > room:
            parts.append([])
        room = (room if parts[-1] else LETTERS) - wide
        parts[-1].append(i)
    return parts


def _tabular(
    block: Block, columns: Sequence[int], heads: Sequence[str], folded: str, *, narrow: bool
) -> str:
    """Some columns of a block, the names of the rows in front."""
    lines: list[str] = []
    for section, entries in block.sections.items():
        if section:
            lines += [r"\addlinespace"] if lines else []
            lines.append(rf"\multicolumn{{{len(columns)}}}{{l}}{{\emph{{{tex(section)}}}}} \\")
        lines += [folded + " & ".join(_cell(line[i]) for i in columns) + r" \\" for line in entries]
    first = r"p{0.25\linewidth}" if folded else "l"
    names = " & ".join([tex(heads[0]), *(_head(heads[i], narrow) for i in columns[1:])])
    begin = rf"\begin{{tabular}}{{{first}{'r' * (len(columns) - 1)}}}"
    top = [begin, r"\toprule", names + r" \\", r"\midrule"]
    return "\n".join([*top, *lines, r"\bottomrule", r"\end{tabular}"])


def _head(text: str, narrow: bool) -> str:
    """In a narrow table its words stand below each other."""
    words = tex(text).replace(r" \%", r"~\%").split(" ")
    if not narrow or len(words) == 1:
        return " ".join(words)
    return r"\shortstack{" + r"\\".join(words) + "}"


def _cell(entry: Entry) -> str:
    text = tex(entry.text) + (r"$^\dagger$" if entry.dagger else "")
    text += r"$^\ddagger$" if entry.seen else ""
    return {"best": rf"\textbf{{{text}}}", "tied": rf"\underline{{{text}}}"}.get(entry.mark, text)


_SIGNS = str.maketrans(
    {character: "\\" + character for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"±": r"$\pm$", "†": r"$\dagger$", "‡": r"$\ddagger$", "<": "$<$", ">": "$>$", "|": "$|$"}
    | {"\n": " ", "\N{MINUS SIGN}": "$-$"}
)


_NEGATIVE = re.compile(r"(?<![\w-])-(?=\d)")


def tex(text: str) -> str:
    """Plain text with what LaTeX would read as commands escaped."""
    return _NEGATIVE.sub("\N{MINUS SIGN}", text).translate(_SIGNS).replace(r"d\_z", "$d_z$")
