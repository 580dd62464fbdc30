"""A stand-in for CUDA graphs on a CPU whose replays really run.

Every operation of torch that a capture does is noted with its tensors. A replay does them once
more, at the same addresses, and puts the results where those of the capture were. As on a GPU, a
graph holds what was made in it and nothing else; what it made has no numbers until it is replayed,
and what it changed has those of before; and a number that is read by the host in a capture ends it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

SUPPORTED = "_get_capturable_supported_devices"  # whom torch's optimizers ask
WAITS = {"_local_scalar_dense", "equal", "nonzero", "is_nonzero", "_unique2", "masked_select"}


class Outside:
    """A tensor that a graph has read but not made: an address."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.storage = StorageWeakRef(tensor.untyped_storage())
        self.view = (tensor.storage_offset(), tensor.size(), tensor.stride())
        self.dtype = tensor.dtype

    def now(self) -> torch.Tensor:
        """What stands there."""
        assert not self.storage.expired(), "a replay reads memory that was freed"
        storage = torch.UntypedStorage._new_with_weak_ptr(self.storage.cdata)
        return torch.empty(0, dtype=self.dtype).set_(storage, *self.view)


class Capture(TorchDispatchMode):
    """Does what is done in it, and notes it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[Any]]] = []
        self.made: dict[int, torch.Tensor] = {}  # by storage, each held
        self.constants: list[torch.Tensor] = []
        self.before: dict[int, tuple[Outside, torch.UntypedStorage]] = {}  # what was not made here

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        kwargs = kwargs or {}
        if name == "lift_fresh":  # a number of the host's: part of the launch
            self.constants += [value for value in args if isinstance(value, torch.Tensor)]
            return args[0]
        noted = tree_map(self._noted, (args, kwargs))
        result = func(*args, **kwargs)
        outputs = [value for value in tree_leaves(result) if isinstance(value, torch.Tensor)]
        read = {storage(t) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for tensor in outputs:
            if storage(tensor) not in read:
                self.made[storage(tensor)] = tensor
        self.calls.append((func, *noted, outputs))
        return result

    def _noted(self, value: Any) -> Any:
        own = isinstance(value, torch.Tensor) and (
            storage(value) in self.made or any(value is constant for constant in self.constants)
        )
        if not isinstance(value, torch.Tensor) or own:
            return value
        outside = Outside(value)
        if storage(value) not in self.before:
            self.before[storage(value)] = (outside, value.untyped_storage().clone())
        return outside

    @torch.no_grad()
    def forget(self) -> None:
        """Leave no number in what was made, and in what was changed those of before."""
        for outside, numbers in self.before.values():
            if not outside.storage.expired():
                outside.now().untyped_storage().copy_(numbers)
        self.before.clear()
        for tensor in self.made.values():
            whole = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
            whole.fill_(torch.nan if whole.is_floating_point() else 0)

    @torch.no_grad()
    def replay(self) -> None:
        """Once more."""
        for func, args, kwargs, outputs in self.calls:
            args, kwargs = tree_map(now, (args, kwargs))
            result = func(*args, **kwargs)
            again = [value for value in tree_leaves(result) if isinstance(value, torch.Tensor)]
            for old, new in zip(outputs, again, strict=True):
                if storage(old) != storage(new):
                    old.detach().copy_(new)


def storage(tensor: torch.Tensor) -> int:
    """Which memory a tensor is in."""
    return tensor.untyped_storage()._cdata


def now(value: Any) -> Any:
    return value.now() if isinstance(value, Outside) else value


class Graph:
    """In the place of ``torch.cuda.CUDAGraph``; the class counts."""

    captures = replays = 0

    def __init__(self) -> None:
        self.capture: Capture | None = None

    def replay(self) -> None:
        """Once more what was captured."""
        assert self.capture is not None
        type(self).replays += 1
        self.capture.replay()


@contextmanager
def captured(graph: Graph, stream: Any = None) -> Iterator[None]:
    """In the place of ``torch.cuda.graph``."""
    type(graph).captures += 1
    capture = Capture()
    with capture:
        yield
    capture.forget()
    graph.capture = capture


def let_optimizers_be_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Optimizers in the form for a graph move weights on a CPU, too."""
    for name, module in list(sys.modules.items()):
        if name.startswith("torch.optim") and hasattr(module, SUPPORTED):
            monkeypatch.setattr(module, SUPPORTED, lambda **_: ["cpu"])


def stand_in_for_graphs(monkeypatch: pytest.MonkeyPatch) -> type[Graph]:
    """Put all of this in the place of CUDA's; the class of the graphs, which counts."""

    class Counting(Graph):
        pass

    monkeypatch.setattr("torch.cuda.CUDAGraph", Counting)
    monkeypatch.setattr("torch.cuda.graph", captured)
    monkeypatch.setattr("torch.cuda.current_stream", lambda _: None)
    return Counting
