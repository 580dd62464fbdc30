"""What is done to tensors of the stand-in for a GPU and shows in no operation on them.

:class:`Calls` belongs to a :class:`fewshot_bench.testing.meta.MetaDevice`.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from operator import itemgetter
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from fewshot_bench.testing.offenses import HOST, META, What, is_mask, under_no_mode

if TYPE_CHECKING:
    from fewshot_bench.testing.meta import MetaDevice

Frames = tuple[tuple[str, int, str], ...]  # (file, line, function), from the innermost on
ON_THE_HOST: dict[str, What] = {
    "numpy": "read", "__array__": "read", "tolist": "read", "__repr__": "print",
    "__format__": "print",
}  # fmt: skip
FROM_THE_HOST = ("tensor", "as_tensor", "asarray")
TORCH = str(Path(torch.__file__).parent)
STAND_IN = {__file__, str(Path(__file__).with_name("meta.py"))}


class Calls(TorchFunctionMode):
    """What shows in no operation: numbers that are read, and lists that become tensors.

    Attributes:
        made: of each call that made nodes of autograd: the number of the first one, that of the
            next one after it, and where the call was.
    """

    def __init__(self, device: MetaDevice) -> None:
        super().__init__()
        self.device = device
        self.made: list[tuple[int, int, Frames]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        frame, first = sys._getframe(1), _next_node()
        result = self._called(func, getattr(func, "__name__", ""), frame, args, kwargs or {})
        if (last := _next_node()) > first:
            self.made.append((first, last, frames_from(frame)))
        return result

    def frames_of(self, node: Any) -> Frames | None:
        """Where a node of autograd was made; None: by no call that was seen."""
        number = node._sequence_nr()
        at = bisect_right(self.made, number, key=itemgetter(0)) - 1
        return self.made[at][2] if at >= 0 and number < self.made[at][1] else None

    def _called(
        self, func: Any, name: str, frame: FrameType, args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        first = args[0] if args else None
        if isinstance(first, Tensor):
            if first.device == META:
                return self._on_device(func, name, frame, first, args, kwargs)
        elif name in FROM_THE_HOST:
            args, onto = self._read(args, name, frame), kwargs.get("device")
            if onto is not None and torch.device(onto) == META:
                return self._sent(func(*args, **{**kwargs, "device": HOST}), name, frame)
        return func(*args, **kwargs)

    def _on_device(
        self, func: Any, name: str, frame: FrameType, first: Tensor, args: Any, kwargs: Any
    ) -> Any:
        if name in ON_THE_HOST:
            self.device.note(ON_THE_HOST[name], name, frame)
            if name != "__repr__":
                return func(self.device.numbers(first), *args[1:], **kwargs)
        if under_no_mode(name, args, kwargs):
            self.device.note("inside", name, frame)
        if name == "new_tensor" and not isinstance(args[1], Tensor):
            data = self._read(args[1:], name, frame)
            made = torch.tensor(*data, **{"dtype": first.dtype, **kwargs, "device": HOST})
            return self._sent(made, name, frame)
        if name in ("__getitem__", "__setitem__"):
            args = (first, *_index_and_value(first, *args[1:]))
        return func(*args, **kwargs)

    def _read(self, data: Any, name: str, frame: FrameType) -> Any:
        """Data for a tensor, with the numbers of those on the device that it is a list of."""
        if any(isinstance(leaf, Tensor) and leaf.device == META for leaf in tree_leaves(data)):
            self.device.note("read", name, frame)
            return self.device.numbers(data)
        return data

    def _sent(self, made: Tensor, name: str, frame: FrameType) -> Tensor:
        self.device.note("to the device", name, frame)
        with self.device.waits_allowed():
            return made.to(META)


def _is_list(index: Any) -> bool:
    return isinstance(index, list | np.ndarray)


def _index_and_value(of: Tensor, index: Any, *value: Any) -> tuple[Any, ...]:
    """An index, and what is assigned to it, as they would come to a GPU."""
    parts = index if isinstance(index, tuple) else (index,)
    tensors = [part for part in parts if isinstance(part, Tensor) or _is_list(part)]
    if any(map(_is_list, tensors)):  # which is then noted as an index on the host
        index = tree_map_only((list, np.ndarray), torch.as_tensor, index, is_leaf=_is_list)
    elif value and isinstance(value[0], int | float) and list(map(is_mask, tensors)) == [True]:
        # torch before 2.15 makes a tensor of the number: for a GPU on the host, else on the device.
        value = (torch.tensor(value[0], dtype=of.dtype),)
    return index, *value


def _next_node() -> int:
    """The number that autograd gives to the next node."""
    return int(torch._C._autograd._get_sequence_nr())


def frames_from(frame: FrameType | None) -> Frames:
    """Where a frame is, and what called it, without the stand-in's own."""
    found = []
    while frame is not None:
        code = frame.f_code
        if code.co_filename not in STAND_IN:
            found.append((code.co_filename, frame.f_lineno, code.co_name))
        frame = frame.f_back
    return tuple(found)


def of_autograd(frames: Frames) -> bool:
    """Whether a backward pass does it of itself, and no hook or backward of somebody's own."""
    for file, _, function in frames:
        if function == "_engine_run_backward":
            return True
        if not file.startswith(TORCH):
            return False
    return False
