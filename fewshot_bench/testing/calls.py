"""What is done to tensors of the stand-in for a GPU and shows in no operation on them.

:class:`Calls` belongs to a :class:`fewshot_bench.testing.meta.MetaDevice`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from fewshot_bench.testing.offences import HOST, META, What

if TYPE_CHECKING:
    from fewshot_bench.testing.meta import MetaDevice

Frames = tuple[tuple[str, int, str], ...]  # (file, line, function), from the innermost on
ON_THE_HOST: dict[str, What] = {
    "numpy": "read", "__array__": "read", "tolist": "read", "__repr__": "print",
    "__format__": "print",
}  # fmt: skip
FROM_THE_HOST = ("tensor", "as_tensor", "asarray")
STAND_IN = {__file__, str(Path(__file__).with_name("meta.py"))}


class Calls(TorchFunctionMode):
    """What shows in no operation: numbers that are read, and lists that become tensors."""

    def __init__(self, device: MetaDevice) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        frame = sys._getframe(1)
        first = args[0] if args else None
        if not isinstance(first, Tensor):
            onto = kwargs.get("device")
            if name in FROM_THE_HOST and onto is not None and torch.device(onto) == META:
                return self._sent(func(*args, **{**kwargs, "device": HOST}), name, frame)
        elif first.device == META:
            return self._on_device(func, name, frame, first, args, kwargs)
        return func(*args, **kwargs)

    def _on_device(
        self, func: Any, name: str, frame: FrameType, first: Tensor, args: Any, kwargs: Any
    ) -> Any:
        if name in ON_THE_HOST:
            self.device.note(ON_THE_HOST[name], name, frame)
            if not name.endswith(("repr__", "format__")):
                return func(self.device.numbers(first), *args[1:], **kwargs)
        if name == "new_tensor":
            made = torch.tensor(*args[1:], **{"dtype": first.dtype, **kwargs, "device": HOST})
            return self._sent(made, name, frame)
        if name in ("__getitem__", "__setitem__") and _lists(args[1]):
            index = tree_map_only((list, np.ndarray), torch.as_tensor, args[1], is_leaf=_is_list)
            return func(first, index, *args[2:])  # which is then noted as an index on the host
        return func(*args, **kwargs)

    def _sent(self, made: Tensor, name: str, frame: FrameType) -> Tensor:
        self.device.note("to the device", name, frame)
        with self.device.waits_allowed():
            return made.to(META)


def _is_list(index: Any) -> bool:
    return isinstance(index, list | np.ndarray)


def _lists(index: Any) -> bool:
    return any(map(_is_list, index if isinstance(index, tuple) else (index,)))


def frames_from(frame: FrameType | None) -> Frames:
    """Where a frame is, and what called it, without the stand-in's own."""
    found = []
    while frame is not None:
        code = frame.f_code
        if code.co_filename not in STAND_IN:
            found.append((code.co_filename, frame.f_lineno, code.co_name))
        frame = frame.f_back
    return tuple(found)
