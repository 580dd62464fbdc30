"""Weights on disk, and other state as JSON beside safetensors; loading runs no code."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fewshot_bench.errors import ConfigError, PluginError, RecordError
from fewshot_bench.method import Method, title_of
from fewshot_bench.utils.devices import is_gpu
from fewshot_bench.utils.files import replacing
from fewshot_bench.utils.inputs import WEIGHTS, check_weights

EXTRA = "extra state"  # what a module's get_extra_state() gives, where that is no tensor
TAG = "\x00"  # a dictionary with this key stands for something that JSON does not have


def save_weights(method: Method, folder: Path) -> dict[str, Any]:
    """Write parameters, buffers and extra state to a weights file: the record's ``weights``.

    ConfigError if the folder cannot be written, PluginError if a tensor or extra state cannot.
    """
    content, tensors = _content(method)
    try:
        with replacing(folder / WEIGHTS) as file:
            file.write(content)
    except OSError as error:
        raise ConfigError(
            f"cannot write '{folder / WEIGHTS}' ({error.strerror}); give another folder with "
            "--runs-dir."
        ) from error
    sha256 = hashlib.sha256(content).hexdigest()
    return {"file": WEIGHTS, "sha256": sha256, "bytes": len(content), "tensors": tensors}


def _content(method: Method) -> tuple[bytes, int]:
    state = method.state_dict()
    tensors = {n: v for n, v in state.items() if isinstance(v, Tensor)}
    weights = {n: v.detach().cpu().contiguous().clone() for n, v in tensors.items()}
    inside: dict[str, Tensor] = {}
    try:
        extra = pack({n: v for n, v in state.items() if n not in tensors}, inside, EXTRA)
        weights |= {f"{EXTRA} {name}": tensor for name, tensor in inside.items()}
        return save(weights, {EXTRA: json.dumps(extra)} if extra else None), len(weights)
    except (TypeError, SafetensorError, KeyError, ValueError) as error:
        raise PluginError(
            f"{type(method).__name__}: its weights cannot be written ({error}); dense tensors of "
            "plain types are possible, and get_extra_state() may return numbers, strings, "
            "tensors, lists and dictionaries."
        ) from error


def check_unmoved(method: Method, written: Mapping[str, Any]) -> None:
    """Raise PluginError if the test moved the weights that :func:`save_weights` has ``written``."""
    if hashlib.sha256(_content(method)[0]).hexdigest() != written["sha256"]:
        raise PluginError(
            f"{title_of(method)}: adapt() or predict() changed a parameter, buffer or extra state "
            "during the test, so that each task's result depends on the tasks before it. Put what "
            "is learned of a task into the state that adapt() returns."
        )


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt", device="cpu") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return tensors, opened.metadata() or {}


def read_weights(folder: Path, *, checked: bool = False) -> dict[str, Any]:
    """What the weights file in a run's folder holds, by name.

    RecordError if there is none, it is damaged, or it has numbers that are not finite, unless it is
    ``checked``, known to be the run's own (a mask may be infinite).
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise RecordError(f"'{folder}' has no {WEIGHTS}; is it the folder of a run?")
    try:
        found, metadata = read_tensors(path)
        inside = {n.removeprefix(f"{EXTRA} "): v for n, v in found.items() if n.startswith(EXTRA)}
        own = {n: v for n, v in found.items() if not n.startswith(EXTRA)}
        extra = json.loads(metadata.get(EXTRA, "{}"))
        weights = own | unpack(extra, inside, torch.device("cpu"))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{path} is damaged ({error}); run the training again.") from error
    for name, value in own.items():
        if not checked and not bool(torch.isfinite(value).all()):
            raise RecordError(f"{path}: '{name}' has numbers that are not finite.")
    return weights


def load_weights(method: Method, folder: Path, record: Mapping[str, Any] | None = None) -> None:
    """Load the weights in a run's folder into a method; ``record`` has the digest of the file.

    ConfigError if names, shapes or types do not fit; RecordError if the file is missing, damaged,
    or another one than the run wrote.
    """
    if record is not None:
        check_weights(folder, record)
    checked = record is not None and record.get("weights") is not None
    weights, own = read_weights(folder, checked=checked), method.state_dict()

    def kind(value: Any) -> Any:  # a number of another type would be rounded silently
        return (value.shape, value.dtype) if isinstance(value, Tensor) else None

    differ = sorted(set(weights) ^ set(own)) or sorted(
        name for name in own if kind(own[name]) != kind(weights[name])
    )
    if differ:
        raise ConfigError(
            f"the weights of {folder} do not fit this method, backbone and task: '{differ[0]}' "
            f"differs ({len(differ)} in all). Give the --backbone and options of that run."
        )
    with torch.no_grad():
        method.load_state_dict(weights)


def pack(value: Any, tensors: dict[str, Tensor], where: str = "state") -> Any:
    """A nested value as JSON that names its tensors and arrays, which go to ``tensors``.

    TypeError if it holds anything but numbers, strings, None, tensors, arrays, lists, tuples and
    dictionaries; it says ``where``.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return pack(value.item(), tensors, where)
    if isinstance(value, np.ndarray):
        return {TAG: "array", "of": pack(torch.from_numpy(np.ascontiguousarray(value)), tensors)}
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        packed: dict[str, Any] = {TAG: "tensor", "name": name}
        packed |= {"device": value.device.type} if is_gpu(value) else {}
        return packed | ({} if value.is_contiguous() else {"stride": list(value.stride())})
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
    """What :func:`pack` had; tensors that were not on a CPU come to the device.

    KeyError, ValueError or TypeError if it was not made by :func:`pack`.
    """
    if isinstance(packed, list):
        return [unpack(item, tensors, device) for item in packed]
    if not isinstance(packed, dict):
        return packed
    if TAG not in packed:
        return {key: unpack(item, tensors, device) for key, item in packed.items()}
    if packed[TAG] == "tensor":
        # The same numbers in the same order in memory: operations may round by that order.
        stored = tensors[packed["name"]]
        where = device if "device" in packed else torch.device("cpu")
        if "stride" not in packed:
            return stored.to(where, copy=True)
        made = torch.empty_strided(stored.shape, packed["stride"], dtype=stored.dtype, device=where)
        return made.copy_(stored)
    kinds: dict[str, Any] = {"array": Tensor.numpy, "tuple": tuple, "pairs": dict}
    return kinds[packed[TAG]](unpack(packed["of"], tensors, device))
