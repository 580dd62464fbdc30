"""Weights on disk: safetensors only, written atomically, so that loading runs no code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fewshot_bench.disk import replacing
from fewshot_bench.engine.tree import pack, unpack
from fewshot_bench.errors import ConfigError, PluginError, RecordError
from fewshot_bench.method import Method

FILE = "weights.safetensors"
EXTRA = "extra state"  # what a module's get_extra_state() gives, where that is no tensor


def save_weights(method: Method, folder: Path) -> None:
    """Write the method's parameters, buffers and extra state to ``folder/weights.safetensors``.

    Raises:
        ConfigError: the disk is full, or the folder cannot be written.
        PluginError: a module's extra state is nothing that can be written.
    """
    state = method.state_dict()
    tensors = {n: v for n, v in state.items() if isinstance(v, Tensor)}
    weights = {n: v.detach().cpu().contiguous().clone() for n, v in tensors.items()}
    inside: dict[str, Tensor] = {}
    try:
        extra = pack({n: v for n, v in state.items() if n not in tensors}, inside, EXTRA)
    except TypeError as error:
        raise PluginError(
            f"{type(method).__name__}: {error}; get_extra_state() may return numbers, words, "
            "tensors, lists and dictionaries."
        ) from error
    weights |= {f"{EXTRA} {name}": tensor for name, tensor in inside.items()}
    content = save(weights, {EXTRA: json.dumps(extra)} if extra else None)
    try:
        with replacing(folder / FILE) as file:
            file.write(content)
    except OSError as error:
        raise ConfigError(
            f"cannot write '{folder / FILE}' ({error.strerror}); give another folder with "
            "--runs-dir."
        ) from error


def read_weights(folder: Path) -> dict[str, Any]:
    """What a run's weights file holds, by name.

    Raises:
        RecordError: there is none, it is damaged, or it has numbers that are not finite.
    """
    path = folder / FILE
    if not path.is_file():
        raise RecordError(f"{folder} has no {FILE}; is it the folder of a run that trained?")
    try:
        with safe_open(path, framework="pt", device="cpu") as opened:
            found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            extra = json.loads((opened.metadata() or {}).get(EXTRA, "{}"))
        inside = {n.removeprefix(f"{EXTRA} "): v for n, v in found.items() if n.startswith(EXTRA)}
        own = {n: v for n, v in found.items() if not n.startswith(EXTRA)}
        weights = own | unpack(extra, inside, torch.device("cpu"))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{path} is damaged ({error}); run the training again.") from error
    for name, value in own.items():
        if not bool(torch.isfinite(value).all()):
            raise RecordError(f"{path}: '{name}' has numbers that are not finite.")
    return weights


def _kind(value: Any) -> tuple[torch.Size, bool] | None:
    """What has to be the same of a tensor: the shape, and whether its numbers are real ones."""
    return (value.shape, value.is_floating_point()) if isinstance(value, Tensor) else None


def load_weights(method: Method, folder: Path) -> None:
    """Put a run's weights into a method.

    Raises:
        ConfigError: names or shapes do not fit; says which.
    """
    weights, own = read_weights(folder), method.state_dict()
    differ = sorted(set(weights) ^ set(own)) or sorted(
        name for name in own if _kind(own[name]) != _kind(weights[name])
    )
    if differ:
        raise ConfigError(
            f"the weights of {folder} do not fit this method, backbone and task: '{differ[0]}' "
            f"differs ({len(differ)} in all). Give the --backbone and options of that run."
        )
    with torch.no_grad():
        method.load_state_dict(weights)
