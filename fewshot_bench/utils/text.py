"""Text from elsewhere, made fit to be shown.

A record, an archive or a plugin's message may hold what a terminal obeys: escape sequences, or
marks that turn the direction of reading. They are shown as ``\\x1b`` and the like, and do nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# Controls but for tab and line feed, marks of direction, separators of lines, halves of characters.
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def printable(text: str) -> str:
    """The text with everything that a terminal would obey written out."""
    return _OBEYED.sub(lambda found: _written(ord(found[0])), text)


def _written(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def one_line(text: str) -> str:
    """The same with every run of white space as one blank."""
    return printable(" ".join(text.split()))


def printable_values(value: Any) -> Any:
    """JSON values with every text in them, keys included, as :func:`printable` has it."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable_values(key): printable_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [printable_values(item) for item in value]
    return value
