"""What a CUDA graph of a method's calls rests on, besides the numbers in its tensors.

A graph reads addresses, and everything that Python decided when it was captured is built in. It
holds as long as the tensors of the method stand where they stood and its other attributes are what
they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from fewshot_bench.method import Method

PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)


class Same:
    """Equal to the very same object alone."""

    def __init__(self, value: object) -> None:
        self.value = value

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value


def conditions(method: Method, device: torch.device) -> Any:
    """What a method is made of: tensors by place, plain attributes by value, others by identity.

    Arguments:
        method: any.
        device: of the graph. A tensor elsewhere was read when the graph was captured, so that the
            number of its changes counts as well.
    """
    return [
        (Same(module), _standing(vars(module), device), _extra(module))
        for module in method.modules()
    ]


def changed(before: Any, after: Any) -> str | None:
    """What is other in the :func:`conditions` of a method, as part of a sentence; None: nothing."""
    for (one, old, extra), (other, new, extra_now) in zip(before, after, strict=False):
        module = type(one.value).__name__
        if one != other:
            return f"the modules of {module}"
        if (name := _other(old, new)) is not None:
            return f"'{name}' of {module}"
        if extra != extra_now:
            return f"the extra state of {module}"
    return None if len(before) == len(after) else "the modules"


def _other(old: Any, new: Any) -> str | None:
    """The first name under which the values of two dictionaries differ."""
    for name in {**old, **new}:
        here, there = old.get(name, _MISSING), new.get(name, _MISSING)
        if here != there:
            inside = name in _REGISTERED and _MISSING not in (here, there)
            return _other(here, there) if inside else str(name)
    return None


_MISSING = Same(None)
_REGISTERED = ("_parameters", "_buffers", "_modules")


def _standing(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        version = 0 if value.is_inference() else value._version
        if value.layout is not torch.strided:
            return (Same(value), version)
        # One that has no memory (an empty one, or one of ``meta``) stands where it is itself.
        place = value.data_ptr() or Same(value)
        kind = (value.shape, value.stride(), value.dtype, value.requires_grad)
        return (place, *kind, 0 if value.device == device else version)
    if value is None or isinstance(value, PLAIN):
        return (type(value), value)
    if isinstance(value, Mapping):
        return {key: _standing(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_standing(item, device) for item in value]
    if isinstance(value, set | frozenset):
        return frozenset(value)
    return Same(value)


def _extra(module: nn.Module) -> Any:
    """Extra state, by value: it may be made of what no attribute shows."""
    if type(module).get_extra_state is nn.Module.get_extra_state:
        return None
    return tree_map_only(Tensor, Tensor.tolist, module.get_extra_state())
