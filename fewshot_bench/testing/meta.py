"""A stand-in for a GPU that every machine has: torch's ``meta`` device, with numbers behind it.

A ``meta`` tensor is on another device than the host's tensors are, so code that runs on it takes
the paths that it takes on a GPU. torch's own has no numbers, which ends a run at the first read.
Here each has its numbers in the host's memory, out of the code's sight: :class:`MetaDevice` runs
every operation there, so that a step on it is a step on the CPU in all but its rules. Those are a
GPU's: it notes, with the line, who reads a number (a wait for the device), who makes a tensor of as
many elements as the numbers decide (another), who copies from the host (which is not pinned, so
that it waits too), and who mixes tensors of the two devices.

A tensor of no dimension on the host may be mixed into an operation element by element: torch hands
it over as an argument, as it does with a Python number. A CUDA graph holds the value that it had,
so it is legal where it never changes; everywhere else (``torch.where``, ``torch.stack``, copies)
it is refused, or a copy.

:meth:`MetaDevice.graph` stands in for a CUDA graph: what is done in its block is recorded and
without effect, and a replay repeats it with the numbers, shapes and places that it had.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from fewshot_bench.testing.calls import Calls, Frames, frames_from, of_autograd
from fewshot_bench.testing.offenses import HOST, META, What, in_backward, offenses


@dataclass(frozen=True)
class Seen:
    """Something that a GPU waits for or refuses.

    Arguments:
        what: it is.
        call: the operation, or the method of a tensor.
        frames: where; of a backward pass, where the forward pass was.
        backward: whether it is in the backward pass of what was done there.
    """

    what: What
    call: str
    frames: Frames
    backward: bool = False


@dataclass(frozen=True)
class Operation:
    """An operation on the device: what it was given are shapes, and numbers of the host's."""

    name: str
    given: tuple[Any, ...]
    frames: Frames


@dataclass
class Graph:
    """A recorded piece of work: operations on the numbers behind the tensors."""

    calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = field(default_factory=list)

    def replay(self) -> None:
        """Do it again, on the same tensors and with the same numbers of Python's."""
        for func, args, kwargs, results in self.calls:
            old: list[Any] = []
            new: list[Any] = []
            _each(results, old.append)
            _each(func(*args, **kwargs), new.append)
            for kept, again in zip(old, new, strict=True):
                # What an operation wrote in place, or is a view of, is where it was.
                if isinstance(kept, Tensor) and _place(kept) != _place(again):
                    kept.copy_(again)


class MetaDevice(TorchDispatchMode):
    """While it lasts, ``meta`` tensors have numbers and are watched; see above.

    Attributes:
        seen: what a GPU would wait for or refuse, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Seen] = []
        self._operations: list[Operation] | None = None
        self._waits_allowed = False
        self._recorded: Graph | None = None
        self._behind: dict[int, Any] = {}  # by the address of a storage: that of its numbers
        self._before: dict[int, Any] = {}  # and the other way, while the first one lives
        self._calls = Calls(self)

    def __enter__(self) -> MetaDevice:
        self._calls.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._calls.__exit__(*error)

    @contextmanager
    def waits_allowed(self) -> Iterator[None]:
        """What is done once may wait for the device; mixing is noted here too."""
        before, self._waits_allowed = self._waits_allowed, True
        try:
            yield
        finally:
            self._waits_allowed = before

    @contextmanager
    def noted(self, wanted: bool = True) -> Iterator[list[Operation]]:
        """The operations that are done in the block; none where they are not wanted."""
        operations: list[Operation] = []
        self._operations = operations if wanted else None
        self._calls.made.clear()  # a step is differentiated before the next one begins
        try:
            yield operations
        finally:
            self._operations = None

    @contextmanager
    def graph(self, graph: Graph) -> Iterator[None]:
        """Record what is done in the block, and leave everything that was there as it was."""
        before = [(real, real.clone()) for real in self._behind.values()]
        self._recorded = graph
        try:
            yield
        finally:
            self._recorded = None
            for real, bytes_ in before:
                real.copy_(bytes_)

    def numbers(self, value: Any) -> Any:
        """A copy of a tensor (or of a tree of them) in the host's memory, for a test to look at."""
        with torch._C.DisableTorchFunction(), torch.no_grad():
            return tree_map_only(Tensor, lambda t: self._host(t.detach()).clone(), value)

    def note(self, what: What, call: str, frame: FrameType | None = None) -> None:
        """Note something that is seen, at the frame that calls (None: the caller's)."""
        if self._waits_allowed and what != "mixed":
            return
        frames, node = frames_from(frame or sys._getframe(1)), torch._C._current_autograd_node()
        made = self._calls.frames_of(node) if node is not None and of_autograd(frames) else None
        self.seen.append(Seen(what, call, made or frames, backward=made is not None))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        flat: list[Any] = []
        _each((args, kwargs), flat.append)
        tensors = [leaf for leaf in flat if isinstance(leaf, Tensor)]
        onto = kwargs.get("device")
        here = any(t.device == META for t in tensors)
        if not here and (onto is None or torch.device(onto) != META):
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        with torch._C.DisableTorchFunction():
            for what in offenses(func, name, tensors, args, kwargs):
                self.note(what, name)
            node = torch._C._current_autograd_node()
            if node is not None and (function := in_backward(node.name(), name)):
                self.note("inside", function)
            if self._operations is not None:
                given = tuple(map(_given, flat))
                self._operations.append(Operation(name, given, frames_from(sys._getframe(1))))
            shown: dict[int, Tensor] = {}  # what an operation works in place on, it gives back

            def host(leaf: Any) -> Any:
                if isinstance(leaf, Tensor):
                    own = self._host(leaf)
                    shown[id(own)] = leaf
                    return own
                return HOST if leaf == META else leaf

            def show(leaf: Any) -> Any:
                if not isinstance(leaf, Tensor):
                    return leaf
                return shown[id(leaf)] if id(leaf) in shown else self._shown(leaf)

            own_args, own_kwargs = _each((args, kwargs), host)
            result = func(*own_args, **own_kwargs)
            if self._recorded is not None:
                self._recorded.calls.append((func, own_args, own_kwargs, result))
            to_host = onto is not None and torch.device(onto) != META
            return result if to_host else _each(result, show)

    def _host(self, tensor: Tensor) -> Tensor:
        """The numbers behind a tensor, where they are."""
        if tensor.device != META:
            return tensor
        storage = tensor.untyped_storage()
        if storage._cdata not in self._behind:  # made by nothing that was seen: empty
            self._pair(storage, torch.zeros(storage.nbytes(), dtype=torch.uint8).untyped_storage())
        own = torch.empty(0, dtype=tensor.dtype)
        own.set_(
            self._behind[storage._cdata], tensor.storage_offset(), tensor.shape, tensor.stride()
        )
        return own.conj() if tensor.is_conj() else own

    def _shown(self, own: Tensor) -> Tensor:
        """The ``meta`` tensor of some numbers."""
        real = own.untyped_storage()
        storage = self._before[real._cdata]() if real._cdata in self._before else None
        if storage is None:
            storage = torch.UntypedStorage(real.nbytes(), device=META)
            self._pair(storage, real)
        tensor = torch.empty(0, dtype=own.dtype, device=META)
        tensor.set_(storage, own.storage_offset(), own.shape, own.stride())
        return tensor.conj() if own.is_conj() else tensor

    def _pair(self, storage: Any, real: Any) -> None:
        self._behind[storage._cdata] = real
        self._before[real._cdata] = weakref.ref(storage)
        weakref.finalize(storage, self._forget, storage._cdata, real._cdata).atexit = False

    def _forget(self, storage: int, real: int) -> None:
        self._behind.pop(storage, None)
        self._before.pop(real, None)


def _each(value: Any, function: Callable[[Any], Any]) -> Any:
    """What a function makes of the leaves of arguments or results: shorter ways than a pytree's."""
    if isinstance(value, tuple | list):
        return type(value)([_each(part, function) for part in value])
    if isinstance(value, dict):
        return {name: _each(part, function) for name, part in value.items()}
    return function(value)


def _given(leaf: Any) -> Any:
    """What of an argument a graph would hold: a shape, or a number."""
    if isinstance(leaf, Tensor):
        alone = leaf.device == HOST and not leaf.dim()
        return tuple(leaf.shape), _given(leaf.item()) if alone else None
    return leaf if leaf == leaf else "nan"  # which equals no other


def _place(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
