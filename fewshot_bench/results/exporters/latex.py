"""Tables for a paper."""

from __future__ import annotations

import re

from fewshot_bench.results.blocks import Block, Entry, blocks
from fewshot_bench.results.comparison import Comparison, Table
from fewshot_bench.results.sentences import TIED, apart, heading

LONGEST = 32  # characters of a name that is not folded
STARTS = {"accuracy, %": "Accuracy in per cent on", "speed": "Speed on"}


def latex(comparison: Comparison) -> str:
    """A ``table`` for each block of each protocol; wants the package booktabs."""
    parts = [
        r"% In the preamble: \usepackage{booktabs}",
        *(
            _table(block, table)
            for table in comparison.tables
            for block in blocks(table, comparison)
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _table(block: Block, table: Table) -> str:
    start = STARTS.get(block.heads[0], "Differences on")
    first = block.heads[0] in STARTS
    words = [text.replace(TIED, "Underlined:", 1) for text in block.words]
    caption = " ".join([f"{start} {heading(table)}.", *apart(table), *words])
    heads = ["" if first else block.heads[0], *block.heads[1:]]
    lines: list[str] = []
    for section, entries in block.sections.items():
        if section:
            lines += [r"\addlinespace"] if lines else []
            lines.append(rf"\multicolumn{{{len(heads)}}}{{l}}{{\emph{{{tex(section)}}}}} \\")
        lines += [" & ".join(map(_cell, line)) + r" \\" for line in entries]
    longest = max(len(line[0].text) for part in block.sections.values() for line in part)
    first_column = "l" if longest <= LONGEST else r"p{0.3\linewidth}"
    told = [
        r"\par\smallskip",
        r"\begin{minipage}{\linewidth}\footnotesize",
        *(tex(text) for text in block.told),
        r"\end{minipage}",
    ]
    return "\n".join(
        [
            r"\begin{table}[tbp]",
            r"\centering",
            rf"\caption{{{tex(caption)}}}",
            rf"\begin{{tabular}}{{{first_column}{'r' * (len(heads) - 1)}}}",
            r"\toprule",
            " & ".join(map(tex, heads)) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            *(told if block.told else []),
            r"\end{table}",
        ]
    )


def _cell(entry: Entry) -> str:
    text = tex(entry.text) + (r"$^\dagger$" if entry.dagger else "")
    return {"best": rf"\textbf{{{text}}}", "tied": rf"\underline{{{text}}}"}.get(entry.mark, text)


_SIGNS = str.maketrans(
    {character: "\\" + character for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"±": r"$\pm$", "†": r"$\dagger$", "<": "$<$", ">": "$>$", "|": "$|$"}
    | {"\n": " ", "\N{MINUS SIGN}": "$-$"}
)


_NEGATIVE = re.compile(r"(?<![\w-])-(?=\d)")


def tex(text: str) -> str:
    """Plain text with what LaTeX would read as commands escaped."""
    return _NEGATIVE.sub("\N{MINUS SIGN}", text).translate(_SIGNS)
