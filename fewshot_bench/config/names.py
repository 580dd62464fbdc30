"""One name for an option, wherever it is given.

``--inner-lr`` of the command line is ``inner_lr`` in Python and ``inner-lr`` (or ``inner_lr``) in a
grid's file: the flag with underscores for hyphens. Python's keywords get an underscore behind:
``--with`` is ``with_``. A switch is true or false: ``--no-first-order`` is ``first_order=False``.
An option that may be repeated takes one value or a list: ``metric=["accuracy", "f1"]``.
"""

from __future__ import annotations

import keyword
from collections.abc import Collection, Mapping
from typing import Any

from fewshot_bench.errors import ConfigError, UnknownName

# Options that may be repeated, and the fields of a configuration that hold all of their values.
FIELDS = {"metric": "metrics", "with_": "observers"}
# Options of the command line that are about what it prints; in Python a run returns its record.
TYPED_ONLY = ("json", "debug", "help")
# What a run in Python takes beside the settings of its configuration, and what an evaluation does,
# which has no observers.
OF_RUN = (*FIELDS, "if_exists")
OF_EVALUATION = ("metric", "part", "trust_code")


def option_name(typed: str) -> str:
    """The Python name of a flag or of a key in a file: ``--with`` -> ``with_``."""
    name = typed.lstrip("-").replace("-", "_")
    return f"{name}_" if keyword.iskeyword(name) else name


def flag(name: str) -> str:
    """How an option is typed: ``with_`` -> ``--with``."""
    return "--" + name.rstrip("_").replace("_", "-")


def to_fields(
    settings: Mapping[str, Any], hint: str, also: Collection[str] = OF_RUN
) -> dict[str, Any]:
    """Options by name to fields of a configuration by name.

    Arguments:
        settings: by name.
        hint: what to type next.
        also: what the call takes beside settings.

    Raises:
        ConfigError: a field's name stands for an option.
    """
    for field in FIELDS.values():
        if field in settings:
            raise unknown_option(field, also, hint)
    return {FIELDS.get(name, name): value for name, value in settings.items()}


def unknown_option(name: str, known: Collection[str], hint: str) -> ConfigError:
    """What to raise for an option that there is not, with the name that was meant.

    Arguments:
        name: as it was given.
        known: Python names of all that may be given here.
        hint: what to type next.
    """
    plain = option_name(name.rstrip("_"))
    if plain in TYPED_ONLY:
        return ConfigError(
            f"option '{name}' is about what the command line prints; in Python and in files leave "
            "it out: a run returns its record."
        )
    names = set(known)
    instead = {field: option for option, field in FIELDS.items() if option in names}.get(name)
    if plain in names and plain != name:
        instead = plain
    elif plain.startswith("no_") and plain[3:] in names:
        instead = f"{plain[3:]}=False"
    return UnknownName("option", name, names, hint, near=instead)
