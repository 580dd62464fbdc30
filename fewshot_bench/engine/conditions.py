"""What a CUDA graph of a method's calls rests on, besides the numbers in its tensors.

A graph reads addresses, and everything that Python decided when it was captured is built in. It
holds as long as the tensors of the method stand where they stood and its other attributes are what
they were.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
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

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value


_MISSING = Same(None)


def conditions(method: Method, device: torch.device) -> Any:
    """What a method is made of: tensors by place, what Python holds by value.

    Attributes are followed through dictionaries, lists, modules and objects of a plugin's own
    classes. Objects of Python's library, of torch and of numpy, functions and classes count by
    identity; large arrays by place.

    Arguments:
        method: any.
        device: of the graph. A tensor elsewhere was read when the graph was captured, so that the
            number of its changes counts as well.
    """
    modules = list(method.modules())
    seen = {id(module) for module in modules}
    return [
        (Same(module), _named(vars(module), device, seen), _extra(module, device))
        for module in modules
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


@contextmanager
def captured_unchanged(method: Method, device: torch.device, before: Any) -> Iterator[None]:
    """Capture calls of a method in this block, which has to be afterwards what it was before.

    A capture runs the method's lines, but no kernel. If no graph comes of it, what the lines set (a
    counter, a tensor without numbers) is put back.

    Arguments:
        before: its :func:`conditions`.

    Raises:
        RuntimeError: the calls change one of its attributes.
    """
    put_back = _attributes(method)
    try:
        yield
        if what := changed(before, conditions(method, device)):
            raise RuntimeError(f"each call of the method changes {what}")
    except BaseException:
        put_back()
        raise


def _attributes(method: Method) -> Callable[[], None]:
    """What puts the attributes of a method's modules back to what they are now."""
    mappings: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
    sequences: list[tuple[list[Any], list[Any]]] = []
    for module in method.modules():
        mappings.append((vars(module), dict(vars(module))))
        for value in vars(module).values():
            if isinstance(value, dict):
                mappings.append((value, dict(value)))
            elif isinstance(value, list):
                sequences.append((value, list(value)))

    def put_back() -> None:
        for mapping, content in mappings:
            mapping.clear()
            mapping.update(content)
        for sequence, items in sequences:
            sequence[:] = items

    return put_back


def _other(old: Any, new: Any) -> str | None:
    """The first name under which the values of two dictionaries differ."""
    for name in {**old, **new}:
        here, there = old.get(name, _MISSING), new.get(name, _MISSING)
        if here != there:
            inside = name in _REGISTERED and _MISSING not in (here, there)
            return _other(here, there) if inside else str(name)
    return None


def _named(values: Mapping[Any, Any], device: torch.device, seen: set[int]) -> dict[Any, Any]:
    return {name: _standing(value, device, seen) for name, value in values.items()}


def _standing(value: Any, device: torch.device, seen: set[int]) -> Any:
    if isinstance(value, Tensor):
        return _place(value, device)
    if value is None or isinstance(value, PLAIN):
        return (type(value), value)
    if isinstance(value, float | complex):
        return (type(value), repr(value))  # NaN is the same as NaN
    if id(value) in seen:  # a cycle, or what stands elsewhere as well
        return Same(value)
    seen.add(id(value))
    if isinstance(value, Mapping):
        return _named(value, device, seen)
    if isinstance(value, list | tuple | deque):
        return [_standing(item, device, seen) for item in value]
    if isinstance(value, set | frozenset):
        return frozenset(value)
    if isinstance(value, np.ndarray):
        return _array(value)
    inside = _inside(value)
    return Same(value) if inside is None else (type(value), _named(inside, device, seen))


def _inside(value: Any) -> Mapping[str, Any] | None:
    """The attributes of an object that are looked at; None: it is what it is."""
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        names = (field.name for field in dataclasses.fields(value))
        return {name: getattr(value, name) for name in names if hasattr(value, name)}
    library = type(value).__module__.partition(".")[0] in LIBRARIES
    if library and not isinstance(value, nn.Module | SimpleNamespace):
        return None
    return getattr(value, "__dict__", None) or None


def _place(tensor: Tensor, device: torch.device) -> Any:
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


def _extra(module: nn.Module, device: torch.device) -> Any:
    """Extra state: it may be made of what no attribute shows.

    By value, but for tensors of the graph's device: a graph itself may change their numbers.
    """
    if type(module).get_extra_state is nn.Module.get_extra_state:
        return None

    def told(part: Any) -> Any:
        if isinstance(part, np.ndarray):
            return _array(part)
        return (part.shape, part.dtype) if part.device == device else part.tolist()

    return repr(tree_map_only((Tensor, np.ndarray), told, module.get_extra_state()))
