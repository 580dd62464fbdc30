"""What a CUDA graph of a method's calls depends on, besides the numbers in its tensors.

A graph reads addresses, and everything that Python decided when it was captured is built in.
"""

import copy
import dataclasses
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewshot_bench.method import Method
from fewshot_bench.utils.torch_private import tree_map_only

PLAIN = (bool, int, str, bytes, torch.dtype, torch.device, torch.Size)
LIBRARIES = {*sys.stdlib_module_names, "torch", "numpy"}
SMALL = 2**16  # bytes of an array that is compared by value
_REGISTERED = ("_parameters", "_buffers", "_modules")


class Same:
    """Equal to the very same object alone."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value


_MISSING = Same(None)


def conditions(method: Method, device: torch.device) -> Any:
    """What a method is made of: tensors by address, what Python holds by value.

    Attributes are followed through dictionaries, lists, modules and objects of a plugin's own
    classes. Other objects, functions and classes count by identity; large arrays by address. A
    tensor elsewhere than on the graph's ``device`` was read when the graph was captured, so that
    the number of its changes counts as well.
    """
    modules = list(method.modules())
    seen = {id(module) for module in modules}
    return [
        (Same(module), _named(vars(module), device, seen), _extra_state(module, device))
        for module in modules
    ]


def changed(before: Any, after: Any) -> str | None:
    """What differs between two :func:`conditions` of a method, as part of a sentence; or None."""
    for (one, old, extra), (other, new, extra_now) in zip(before, after, strict=False):
        module = type(one.value).__name__
        if one != other:
            return f"the modules of {module}"
        if (name := _first_difference(old, new)) is not None:
            return f"'{name}' of {module}"
        if extra != extra_now:
            return f"the extra state of {module}"
    return None if len(before) == len(after) else "the modules"


@contextmanager
def captured_unchanged(method: Method, device: torch.device, before: Any) -> Iterator[None]:
    """Capture calls of a method in this block; RuntimeError if they change its :func:`conditions`.

    If that fails, what the method's lines set (a counter, a tensor without numbers) is put back.
    """
    attributes = [vars(module) for module in method.modules()]
    nested = [v for own in attributes for v in own.values() if isinstance(v, dict | list)]
    old = [(holder, copy.copy(holder)) for holder in (*attributes, *nested)]
    try:
        yield
        if what := changed(before, conditions(method, device)):
            raise RuntimeError(f"each call of the method changes {what}")
    except BaseException:
        for holder, content in old:
            holder.clear()
            holder.extend(content) if isinstance(holder, list) else holder.update(content)
        raise


def _first_difference(old: Any, new: Any) -> str | None:
    for name in {**old, **new}:
        here, there = old.get(name, _MISSING), new.get(name, _MISSING)
        if here != there:
            nested = name in _REGISTERED and _MISSING not in (here, there)
            return _first_difference(here, there) if nested else str(name)
    return None


def _named(values: Mapping[Any, Any], device: torch.device, seen: set[int]) -> dict[Any, Any]:
    return {name: _value(value, device, seen) for name, value in values.items()}


def _value(value: Any, device: torch.device, seen: set[int]) -> Any:
    if isinstance(value, Tensor):
        return _address(value, device)
    if value is None or isinstance(value, PLAIN):
        return (type(value), value)
    if isinstance(value, float | complex):
        return (type(value), repr(value))  # NaN is the same as NaN
    if id(value) in seen:  # a cycle, or a second reference
        return Same(value)
    seen.add(id(value))
    if isinstance(value, Mapping):
        return _named(value, device, seen)
    if isinstance(value, list | tuple | deque):
        return [_value(item, device, seen) for item in value]
    if isinstance(value, set | frozenset):
        return frozenset(value)
    if isinstance(value, np.ndarray):
        return _array(value)
    inside = _inside(value)
    return Same(value) if inside is None else (type(value), _named(inside, device, seen))


def _inside(value: Any) -> Mapping[str, Any] | None:
    """The attributes of an object that count; None: the object counts by identity."""
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        names = (field.name for field in dataclasses.fields(value))
        return {name: getattr(value, name) for name in names if hasattr(value, name)}
    library = type(value).__module__.partition(".")[0] in LIBRARIES
    if library and not isinstance(value, nn.Module | SimpleNamespace):
        return None
    return getattr(value, "__dict__", None) or None


def _address(tensor: Tensor, device: torch.device) -> Any:
    version = 0 if tensor.is_inference() else tensor._version
    if tensor.layout is not torch.strided:
        return (Same(tensor), version)
    try:
        place: Any = tensor.data_ptr()
        if not place:  # of ``meta``, or empty
            place = (tensor.untyped_storage()._cdata, tensor.storage_offset())
    except RuntimeError:  # one that a transformation of torch.func has left behind
        return Same(tensor)
    kind = (tensor.shape, tensor.stride(), tensor.dtype, tensor.requires_grad)
    return (place, *kind, 0 if tensor.device == device else version)


def _array(array: np.ndarray) -> Any:
    small = array.nbytes <= SMALL and not array.dtype.hasobject
    content = array.tobytes() if small else array.__array_interface__["data"]
    return (array.shape, str(array.dtype), content)


def _extra_state(module: nn.Module, device: torch.device) -> Any:
    """Extra state by value, but for tensors of the graph's device, which a graph may change."""
    if type(module).get_extra_state is nn.Module.get_extra_state:
        return None

    def value(part: Any) -> Any:
        if isinstance(part, np.ndarray):
            return _array(part)
        return (part.shape, part.dtype) if part.device == device else part.tolist()

    return repr(tree_map_only((Tensor, np.ndarray), value, module.get_extra_state()))
