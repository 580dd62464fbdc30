"""Nested Python values as JSON beside tensors: what a checkpoint is made of.

Nothing that is read back can run code: JSON names every tensor, and safetensors holds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewshot_bench.utils.devices import is_gpu

# A dictionary with this key is no dictionary of the state but something that JSON does not have.
TAG = "\x00"


def pack(value: Any, tensors: dict[str, Tensor], where: str = "state") -> Any:
    """The value as JSON has it; tensors and arrays go to ``tensors``.

    Arguments:
        value: numbers, words, None, tensors, NumPy arrays, and lists, tuples and dictionaries.
        tensors: {name: tensor on the CPU}, filled.
        where: what the value is called in a message.

    Raises:
        TypeError: something else is in there; says where.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray):
        return {TAG: "array", "of": pack(torch.from_numpy(np.ascontiguousarray(value)), tensors)}
    if isinstance(value, Tensor):
        return _pack_tensor(value, tensors)
    if isinstance(value, np.generic):
        return pack(value.item(), tensors, where)
    if isinstance(value, list):
        return [pack(item, tensors, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, tuple):
        return {TAG: "tuple", "of": pack(list(value), tensors, where)}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and key != TAG for key in value):
            return {key: pack(item, tensors, f"{where}.{key}") for key, item in value.items()}
        return {TAG: "pairs", "of": pack([list(pair) for pair in value.items()], tensors, where)}
    raise TypeError(f"{where} is a {type(value).__name__}")


def unpack(packed: Any, tensors: Mapping[str, Tensor], device: torch.device) -> Any:
    """What was packed.

    Arguments:
        packed: as :func:`pack` gave it.
        tensors: by name.
        device: for tensors that were on no CPU.

    Raises:
        KeyError, ValueError, TypeError: it is no such thing.
    """
    if isinstance(packed, list):
        return [unpack(item, tensors, device) for item in packed]
    if not isinstance(packed, dict):
        return packed
    if TAG not in packed:
        return {key: unpack(item, tensors, device) for key, item in packed.items()}
    kind = packed[TAG]
    if kind == "tensor":
        return _unpack_tensor(packed, tensors, device)
    inner = unpack(packed["of"], tensors, device)
    if kind == "array":
        return inner.numpy()
    if kind == "tuple":
        return tuple(inner)
    if kind == "pairs":
        return {key: item for key, item in inner}
    raise ValueError(f"a value of kind '{kind}'")


def _pack_tensor(tensor: Tensor, tensors: dict[str, Tensor]) -> dict[str, Any]:
    name = str(len(tensors))
    packed: dict[str, Any] = {TAG: "tensor", "name": name}
    if is_gpu(tensor):
        packed["device"] = tensor.device.type
    if not tensor.is_contiguous():
        packed["stride"] = list(tensor.stride())
    tensors[name] = tensor.detach().to("cpu", copy=True).contiguous()
    return packed


def _unpack_tensor(
    packed: Mapping[str, Any], tensors: Mapping[str, Tensor], device: torch.device
) -> Tensor:
    """The same numbers in the same order in memory: operations may round by that order."""
    stored = tensors[packed["name"]]
    where = device if "device" in packed else torch.device("cpu")
    stride = packed.get("stride")
    if stride is None:
        return stored.to(where, copy=True)
    made = torch.empty_strided(stored.shape, stride, dtype=stored.dtype, device=where)
    return made.copy_(stored)
