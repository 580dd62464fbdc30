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
        RecordError: there is none, or it is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        raise RecordError(f"{folder} has no {FILE}; is it the folder of a run that trained?")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise RecordError(f"{path} is damaged ({error}); run the training again.") from error


def load_weights(method: Method, folder: Path) -> None:
    """Put a run's weights into a method.

    Raises:
        ConfigError: names or shapes do not fit; says which.
    """
    weights, own = read_weights(folder), method.state_dict()
    differ = sorted(set(weights) ^ set(own)) or sorted(
        name for name in own if own[name].shape != weights[name].shape
    )
    if differ:
        raise ConfigError(
            f"the weights of {folder} do not fit this method, backbone and task: '{differ[0]}' "
            f"differs ({len(differ)} in all). Give the --backbone and options of that run."
        )
    with torch.no_grad():
        method.load_state_dict(weights)
