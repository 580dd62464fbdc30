"""Class names that say what a class is, and those that only number it.

Copies that were resized or re-encoded have other fingerprints, but mostly keep their names. A name
such as ``class_3`` says nothing: every data set may have one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

# Words that number a class or say that it is one. Not complete: a note asks, and refuses nothing.
GENERIC = frozenset(
    {
        "alphabet", "category", "char", "character", "class", "cls", "digit", "family",
        "glyph", "group", "id", "image", "img", "item", "label", "letter", "number", "object",
        "part", "sample", "set", "split", "symbol", "test", "train", "training", "type", "val",
        "validation",
    }
)  # fmt: skip
SHORTEST = 3  # letters of a word that says something, in a script that spells words
IDENTIFIER = 6  # digits of a number that names (WordNet's n01532829) and does not count
Words = tuple[str, ...]


def words_of(name: str) -> Words:
    """A name's words and numbers, whatever is between them; of a quarter turn that of the image."""
    plain = re.sub(r"/rot[0-9]+$", "", name.casefold())
    return tuple(one.lstrip("0") or "0" for one in re.findall(r"[^\W\d_]+|[0-9]+", plain))


def tells(words: Words) -> bool:
    """Whether a name with these words says what the class is."""
    return any(
        len(word) >= IDENTIFIER
        if word.isdigit()
        else word not in GENERIC and (len(word) >= SHORTEST or not word.isascii())
        for word in words
    )


def same_names(names: Sequence[str], others: Iterable[str]) -> Mapping[str, str]:
    """Which of the names are among the others, as those have it, if most of them are.

    A few may be equal by chance, or because two data sets show the same things: then nothing is.
    """
    known = {words: other for other in others if tells(words := words_of(other))}
    found = {name: known[words] for name in names if (words := words_of(name)) in known}
    return found if 2 * len(found) > len(names) else {}
