"""Weights on disk: safetensors only, written atomically, so that loading runs no code."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fewshot_bench.errors import ConfigError, RecordError
from fewshot_bench.method import Method

FILE = "weights.safetensors"


def save_weights(method: Method, folder: Path) -> None:
    """Write the method's parameters and buffers to ``folder/weights.safetensors``."""
    weights = {n: v.detach().cpu().contiguous().clone() for n, v in method.state_dict().items()}
    partial = folder / (FILE + ".part")
    save_file(weights, partial)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, folder / FILE)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a run's weights file.

    Raises:
        RecordError: there is none, it is damaged, or it has numbers that are not finite.
    """
    path = folder / FILE
    if not path.is_file():
        raise RecordError(f"{folder} has no {FILE}; is it the folder of a run that trained?")
    try:
        weights = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise RecordError(f"{path} is damaged ({error}); run the training again.") from error
    for name, value in weights.items():
        if not bool(torch.isfinite(value).all()):
            raise RecordError(f"{path}: '{name}' has numbers that are not finite.")
    return weights


def _kind(tensor: Tensor) -> tuple[torch.Size, bool]:
    """What has to be the same: the shape, and whether its numbers are real ones."""
    return tensor.shape, tensor.is_floating_point()


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
