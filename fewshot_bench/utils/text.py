"""Text of records, archives and plugins, made safe to print.

Escape sequences and marks that change the direction of text are shown as ``\\x1b`` and the like.
"""

import re
from collections.abc import Mapping
from typing import Any

# Controls except tab and line feed, marks of direction, line separators, surrogates.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def printable(text: str) -> str:
    """The text with characters that a terminal would obey escaped."""

    def escaped(found: re.Match[str]) -> str:
        code = ord(found[0])
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

    return _UNSAFE.sub(escaped, text)


def one_line(text: str) -> str:
    """:func:`printable` text with runs of white space as single blanks."""
    return printable(" ".join(text.split()))


def printable_values(value: Any) -> Any:
    """JSON values with all strings in them, keys included, :func:`printable`."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable_values(key): printable_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [printable_values(item) for item in value]
    return value
