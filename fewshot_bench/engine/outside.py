"""What a method keeps outside of itself: attributes of its classes, and names of their modules.

A running mean in a class attribute, or a dictionary of a module, is in no file of weights: it goes
with the process, and until then every method of the process shares it.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

PLAIN = (bool, int, float, complex, str, bytes, type(None), list, dict, set, tuple, Tensor,
         np.ndarray)  # fmt: skip
OURS = ("torch", "fewshot_bench", "builtins", "abc", "typing")  # packages whose state is their own
MOST = 2**24  # numbers; a larger table is data, and costs too much to copy

Place = tuple[Any, str]  # a class or module, and a name in it


class Outside:
    """Plain values of the classes and modules that a method is made of, as they are now.

    Those of torch and of this package, and what cannot be copied, are left alone.

    Arguments:
        method: a method, or any module.
    """

    def __init__(self, method: nn.Module) -> None:
        self._owners = _owners(method)
        self._begun = _values(self._owners)
        self._kept: dict[Place, Any] = {}
        for place, value in self._begun.items():
            try:
                self._kept[place] = copy.deepcopy(value)
            except Exception:  # it holds a lock, a file, a tensor of a graph
                continue

    @contextmanager
    def restored(self) -> Iterator[list[str]]:
        """Put back for a while what has changed since; gives its names."""
        now = _values(self._owners)
        new = [place for place in now if place not in self._begun]
        changed = [
            place for place, kept in self._kept.items() if not _unchanged(now.get(place), kept)
        ]
        try:
            for owner, name in new:
                delattr(owner, name)
            for owner, name in changed:
                setattr(owner, name, copy.deepcopy(self._kept[owner, name]))
            yield [f"'{name}' of {_title(owner)}" for owner, name in (*changed, *new)]
        finally:
            for owner, name in (*changed, *new):
                if (owner, name) in now:
                    setattr(owner, name, now[owner, name])


def _owners(method: nn.Module) -> list[Any]:
    classes = dict.fromkeys(kind for m in method.modules() for kind in type(m).__mro__)
    own = [kind for kind in classes if kind.__module__.partition(".")[0] not in OURS]
    modules = dict.fromkeys(kind.__module__ for kind in own)
    return [*own, *(sys.modules[name] for name in modules if name in sys.modules)]


def _values(owners: list[Any]) -> dict[Place, Any]:
    return {
        (owner, name): value
        for owner in owners
        for name, value in vars(owner).items()
        if isinstance(value, PLAIN) and not name.startswith("__") and _size(value) <= MOST
    }


def _size(value: Any) -> int:
    return value.numel() if isinstance(value, Tensor) else getattr(value, "size", 0)


def _unchanged(one: Any, other: Any) -> bool:
    try:
        return _same(one, other)
    except Exception:  # what cannot be compared counts as another: it is put back, and that is all
        return False


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)


def _title(owner: Any) -> str:
    file = getattr(owner, "__file__", None)
    return (
        f"class {owner.__name__}" if isinstance(owner, type) else f"module {Path(file or '').name}"
    )
