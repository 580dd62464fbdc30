"""Names that a package exports and loads when they are first used."""

import importlib
from collections.abc import Callable
from typing import Any


def lazy_exports(package: str, **names: str) -> Callable[[str], Any]:
    """The module-level ``__getattr__`` (PEP 562) of a package.

    So that listing plugins or showing help does not import torch, which takes seconds. ``names``:
    for each module of the package, the names that it defines, separated by blanks.
    """
    module_of = {name: module for module, listed in names.items() for name in listed.split()}

    def get(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        return getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)

    return get
