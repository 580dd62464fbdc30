"""Checkpoints on disk: one safetensors file each, named by its step and its sha256.

A file appears under its name when all of it is on the disk, and a name that does not fit the
content tells of damage. Tensors are safetensors, everything else is JSON in the file's header, so
that reading one runs no code.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from fewshot_bench.engine.tree import pack, unpack
from fewshot_bench.errors import ConfigError, PluginError
from fewshot_bench.utils.files import replacing, sweep, sync_folder

FOLDER = "checkpoints"
FORMAT = 1
BELONGS = ("run", "config")
_NAME = re.compile(r"step-(\d+)-([0-9a-f]{64})\.safetensors")


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was read.

    Arguments:
        step: it was written after.
        about: what it belongs to.
        state: packed; see :meth:`unpacked`.
        tensors: of the state.
    """

    step: int
    about: Mapping[str, Any]
    state: Any
    tensors: Mapping[str, torch.Tensor]

    def unpacked(self, device: torch.device) -> Any:
        """The state, its tensors where they were: on a CPU, or on this device."""
        return unpack(self.state, self.tensors, device)


class Store:
    """The checkpoints of a run.

    Arguments:
        run_folder: of the run; they lie in its ``checkpoints``.
        keep: how many, the newest.
        about: what they belong to: JSON values; those of ``BELONGS`` have to be the same in what
            is read.
    """

    def __init__(
        self, run_folder: Path, keep: int = 2, about: Mapping[str, Any] | None = None
    ) -> None:
        self.folder, self.keep = run_folder / FOLDER, keep
        self.about: dict[str, Any] = json.loads(json.dumps(about or {}))

    def save(self, step: int, state: Any) -> Path:
        """Write a checkpoint, then remove those that are too many.

        Raises:
            ConfigError: the disk is full, or the folder cannot be written.
            PluginError: the state holds what no checkpoint can.
        """
        tensors: dict[str, torch.Tensor] = {}
        try:
            header = {"format": FORMAT, "step": step, "about": self.about}
            header["state"] = pack(state, tensors)
            content = save(tensors, {"checkpoint": json.dumps(header)})
        except (TypeError, KeyError, SafetensorError) as error:
            raise PluginError(
                f"a checkpoint cannot hold it: {error}; numbers, words, tensors, lists and "
                "dictionaries are possible."
            ) from error
        path = self.folder / f"step-{step:08d}-{hashlib.sha256(content).hexdigest()}.safetensors"
        try:
            if not self.folder.is_dir():
                self.folder.mkdir(parents=True)
                sync_folder(self.folder.parent)
            with replacing(path) as file:
                file.write(content)
        except OSError as error:
            raise ConfigError(
                f"cannot write the checkpoint of step {step} to '{self.folder}' "
                f"({error.strerror}); the one before it, if there is one, is whole"
            ) from error
        for other in self.paths():
            if step_of(other) == step and other != path:  # before the validation of that step
                other.unlink(missing_ok=True)
        self.prune(self.keep)
        return path

    def prune(self, keep: int) -> None:
        """Leave the newest ``keep`` checkpoints, and no unfinished file."""
        for path in self.paths()[keep:]:
            path.unlink(missing_ok=True)
        sweep(self.folder)

    def paths(self) -> list[Path]:
        """All checkpoints, the newest (the one of the highest step) first."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)]
        return sorted(found, key=step_of, reverse=True)

    def newest(self, tell: Callable[[str], None]) -> Saved | None:
        """The newest checkpoint that is whole; None if there is none.

        Arguments:
            tell: takes a line on each that is damaged.
        """
        for path in self.paths():
            saved = read(path)
            if isinstance(saved, str):
                tell(f"the checkpoint of step {step_of(path)} is damaged ({saved}): '{path}'")
            elif any(saved.about.get(name) != self.about.get(name) for name in BELONGS):
                tell(f"the checkpoint of step {saved.step} is of another run or other settings: "
                     f"'{path}'")  # fmt: skip
            else:
                return saved
        return None


def step_of(path: Path) -> int:
    """The step in the name of a checkpoint."""
    found = _NAME.fullmatch(path.name)
    assert found is not None
    return int(found[1])


def read(path: Path) -> Saved | str:
    """A checkpoint, or what is wrong with the file."""
    named = _NAME.fullmatch(path.name)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if named is None or digest != named[2]:
            return "its sha256 is not the one in its name"
        with safe_open(path, framework="pt", device="cpu") as opened:
            header = json.loads((opened.metadata() or {})["checkpoint"])
            if header["format"] != FORMAT:
                return f"its format is {header['format']}; this version reads {FORMAT}"
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return Saved(int(header["step"]), dict(header["about"]), header["state"], tensors)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"
