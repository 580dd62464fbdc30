"""Weights on disk: safetensors only, written atomically, so that loading runs no code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fewshot_bench.engine.tree import pack, unpack
from fewshot_bench.errors import ConfigError, PluginError, RecordError
from fewshot_bench.method import Method, title_of
from fewshot_bench.utils.files import replacing

WEIGHTS = "weights.safetensors"  # in the folder of every finished run
EXTRA = "extra state"  # what a module's get_extra_state() gives, where that is no tensor


def save_weights(method: Method, folder: Path) -> dict[str, Any]:
    """Write the method's parameters, buffers and extra state to ``folder/weights.safetensors``.

    A method that has none of them gets a file all the same: an empty one.

    Returns:
        The record's ``weights``: ``file``, ``sha256``, ``bytes`` and ``tensors`` (their number).

    Raises:
        ConfigError: the disk is full, or the folder cannot be written.
        PluginError: a module's extra state, or a tensor, is nothing that can be written.
    """
    content, tensors = _written(method)
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


def _written(method: Method) -> tuple[bytes, int]:
    """The content of a weights file, and how many tensors are in it.

    Raises:
        PluginError: see :func:`save_weights`.
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
    try:
        content = save(weights, {EXTRA: json.dumps(extra)} if extra else None)
    except (SafetensorError, KeyError, ValueError) as error:
        raise PluginError(
            f"{type(method).__name__}: its weights cannot be written ({error}); dense tensors of "
            "plain types are possible."
        ) from error
    return content, len(weights)


def check_unmoved(method: Method, written: Mapping[str, Any]) -> None:
    """See that a method still has the weights that it was tested with.

    Arguments:
        method: after the test.
        written: the record's ``weights``, of before.

    Raises:
        PluginError: the test moved them, so that a task's result hangs on the tasks before it.
    """
    if hashlib.sha256(_written(method)[0]).hexdigest() != written["sha256"]:
        raise PluginError(
            f"{title_of(method)}: adapt() or predict() changed a parameter, buffer or extra state "
            "during the test, so that each task's result depends on the tasks before it. Keep what "
            "is learned of a task in the state that adapt() returns."
        )


def read_weights(folder: Path, *, checked: bool = False) -> dict[str, Any]:
    """What a run's weights file holds, by name.

    Arguments:
        folder: of the run.
        checked: it is known to be the file that the run wrote, so that an infinite number in it
            (a mask, say) is the run's own.

    Raises:
        RecordError: there is none, it is damaged, or it has numbers that are not finite.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise RecordError(f"'{folder}' has no {WEIGHTS}; is it the folder of a run?")
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
        if not checked and not bool(torch.isfinite(value).all()):
            raise RecordError(f"{path}: '{name}' has numbers that are not finite.")
    return weights


def _kind(value: Any) -> tuple[torch.Size, torch.dtype] | None:
    """What has to be the same of a tensor: a number of another type would be rounded silently."""
    return (value.shape, value.dtype) if isinstance(value, Tensor) else None


def load_weights(method: Method, folder: Path, record: Mapping[str, Any] | None = None) -> None:
    """Put a run's weights into a method.

    Arguments:
        method: that takes them.
        folder: of the run.
        record: of the run; the file has to be the one that it tells of.

    Raises:
        ConfigError: names, shapes or types do not fit; says which.
        RecordError: the file is missing, damaged, or another one than the run wrote.
    """
    if record is not None:
        check_weights(folder, record)
    checked = record is not None and record.get("weights") is not None
    weights, own = read_weights(folder, checked=checked), method.state_dict()
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


def check_weights(folder: Path, record: Mapping[str, Any]) -> None:
    """Hold a run's weights file against the digest in its record.

    An older record has no digest; then only a missing file is noticed.

    Raises:
        RecordError: the file is missing, or is not the one that the run wrote.
    """
    path, written = folder / WEIGHTS, record.get("weights")
    if not path.is_file():
        if written is None and record.get("training") is None:
            raise RecordError(
                f"'{folder}' has no {WEIGHTS}: the fewshot-bench that wrote it kept no weights of "
                "a run that trains nothing. Run it again."
            )
        raise RecordError(
            f"'{folder}' has no {WEIGHTS}, which holds the weights that made its result. Put the "
            "file back, or run it again."
        )
    if written is None:
        return
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RecordError(f"cannot read '{path}' ({error.strerror}).") from error
    if found != written["sha256"]:
        raise RecordError(
            f"'{path}' is not the file that the run wrote: its sha256 is another than in the "
            "record. Put the file back, or run it again."
        )
