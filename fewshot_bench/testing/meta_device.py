"""A stand-in for a GPU on any machine: torch's ``meta`` device, with values in host memory.

Code that runs on ``meta`` tensors takes the paths that it takes on a GPU. torch's own have no
values; :class:`MetaDevice` stores them in host memory, hidden from the code, and runs every
operation there: a step gives the numbers of a CPU under the rules of a GPU. It records, with the
line, each violation of these rules: reading a number, making a tensor whose size depends on
numbers, copying from host memory (not pinned), all of which wait for the device, and mixing tensors
of both devices.

A host tensor without dimensions is legal in elementwise operations, to which torch passes it like a
Python number; everywhere else (``torch.where``, ``torch.stack``, copies) it is a violation.
"""

from __future__ import annotations

import pkgutil
import sys
import traceback
import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import takewhile
from operator import itemgetter
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fewshot_bench.utils import torch_private as private

META, HOST = torch.device("meta"), torch.device("cpu")
TORCH = str(Path(torch.__file__).parent)
Frames = tuple[tuple[str, int, str], ...]  # (file, line, function), from the innermost outwards
What = Literal[
    "read", "inside", "shape", "print", "solver", "to the host", "to the device", "mixed"
]


class Violation(NamedTuple):
    what: What
    call: str  # the operation, or the method of a tensor
    frames: Frames  # where; of a backward pass, where the forward pass was
    backward: bool = False  # whether it is in the backward pass of what was called there


class Operation(NamedTuple):
    name: str
    given: tuple[Any, ...]  # shapes and host numbers of its arguments
    frames: Frames


class MetaDevice(private.TorchDispatchMode):
    """Within it, ``meta`` tensors have values, and violations are recorded; see the module."""

    def __init__(self) -> None:
        super().__init__()
        self.violations: list[Violation] = []
        self._operations: list[Operation] | None = None
        self._waits_allowed = False
        self._values: dict[int, Any] = {}  # {address of a meta storage: storage of its values}
        self._owners: dict[int, Any] = {}  # {address of values: weak reference to the meta storage}
        self._calls = _Calls(self)

    def __enter__(self) -> MetaDevice:
        self._calls.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._calls.__exit__(*error)

    def waits_allowed(self) -> AbstractContextManager[Any]:
        """A block of work that is done once may wait for the device; it may not mix tensors."""
        return mock.patch.object(self, "_waits_allowed", True)

    @contextmanager
    def recorded(self, wanted: bool = True) -> Iterator[list[Operation]]:
        """The operations of the block; empty if they are not wanted."""
        operations: list[Operation] = []
        self._calls.nodes.clear()  # a step is differentiated before the next one begins
        with mock.patch.object(self, "_operations", operations if wanted else None):
            yield operations

    def on_host(self, value: Any) -> Any:
        """A copy of a tensor (or of a pytree of them) in host memory, for a test to read."""
        with private.without_torch_function(), torch.no_grad():
            return private.tree_map_only(Tensor, lambda t: self._to_host(t.detach()).clone(), value)

    def report(self, what: What, call: str, frame: FrameType | None = None) -> None:
        """Record a violation at the frame that calls (None: the caller's)."""
        if self._waits_allowed and what != "mixed":
            return
        frames, node = _frames(frame or sys._getframe(1)), private.current_autograd_node()
        # Of torch's own backward pass, and no hook or backward of somebody else.
        torchs = takewhile(lambda frame: frame[0].startswith(TORCH), frames)
        by_autograd = any(function == "_engine_run_backward" for *_, function in torchs)
        made = self._calls.frames_of(node) if node is not None and by_autograd else None
        self.violations.append(Violation(what, call, made or frames, backward=made is not None))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        flat = _leaves((args, kwargs))
        tensors = [leaf for leaf in flat if isinstance(leaf, Tensor)]
        target = kwargs.get("device")
        to_host = target is not None and torch.device(target) != META
        if not any(t.device == META for t in tensors) and (target is None or to_host):
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        with private.without_torch_function():
            for what in _violations(func, name, tensors, args, kwargs, to_host):
                self.report(what, name)
            node = private.current_autograd_node()
            owner, function = BACKWARD.get(name, ("", ""))
            if node is not None and owner and node.name().startswith(owner):
                self.report("inside", function)
            if self._operations is not None:
                given = tuple(map(_given, flat))
                self._operations.append(Operation(name, given, _frames(sys._getframe(1))))
            wrapped: dict[int, Tensor] = {}  # an operation in place returns its argument

            def unwrap(leaf: Any) -> Any:
                if isinstance(leaf, Tensor):
                    values = self._to_host(leaf)
                    wrapped[id(values)] = leaf
                    return values
                return HOST if leaf == META else leaf

            def wrap(leaf: Any) -> Any:
                if not isinstance(leaf, Tensor):
                    return leaf
                return wrapped[id(leaf)] if id(leaf) in wrapped else self._to_meta(leaf)

            own_args, own_kwargs = _map((args, kwargs), unwrap)
            result = self.run(func, own_args, own_kwargs)
            return result if to_host else _map(result, wrap)

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return func(*args, **kwargs)

    def _to_host(self, tensor: Tensor) -> Tensor:
        """The values of a tensor, not copied."""
        if tensor.device != META:
            return tensor
        storage = tensor.untyped_storage()
        if storage._cdata not in self._values:  # made by no operation that was seen: empty
            self._pair(storage, torch.zeros(storage.nbytes(), dtype=torch.uint8).untyped_storage())
        values = torch.empty(0, dtype=tensor.dtype)
        values.set_(
            self._values[storage._cdata], tensor.storage_offset(), tensor.shape, tensor.stride()
        )
        return values.conj() if tensor.is_conj() else values

    def _to_meta(self, values: Tensor) -> Tensor:
        held = values.untyped_storage()
        storage = self._owners[held._cdata]() if held._cdata in self._owners else None
        if storage is None:
            storage = torch.UntypedStorage(held.nbytes(), device=META)
            self._pair(storage, held)
        tensor = torch.empty(0, dtype=values.dtype, device=META)
        tensor.set_(storage, values.storage_offset(), values.shape, values.stride())
        return tensor.conj() if values.is_conj() else tensor

    def _pair(self, storage: Any, values: Any) -> None:
        def forget(address: int, of_values: int) -> None:
            self._values.pop(address, None)
            self._owners.pop(of_values, None)

        self._values[storage._cdata] = values
        self._owners[values._cdata] = weakref.ref(storage)
        weakref.finalize(storage, forget, storage._cdata, values._cdata).atexit = False


def _map(value: Any, function: Callable[[Any], Any]) -> Any:
    """A function of each leaf of arguments or results; faster than a pytree's."""
    if isinstance(value, tuple | list):
        return type(value)([_map(part, function) for part in value])
    if isinstance(value, dict):
        return {name: _map(part, function) for name, part in value.items()}
    return function(value)


def _leaves(value: Any) -> list[Any]:
    found: list[Any] = []
    _map(value, found.append)
    return found


def _given(leaf: Any) -> Any:
    """What a graph would store of an argument: a shape, or a number."""
    if isinstance(leaf, Tensor):
        scalar = leaf.device == HOST and not leaf.dim()
        return tuple(leaf.shape), _given(leaf.item()) if scalar else None
    return leaf if leaf == leaf else "nan"  # NaN differs from itself


# torch marks some operations whose result depends on numbers (``torch.Tag``). The lists here are
# the other ones whose GPU code reads numbers of the device on the host, found in the libraries of
# torch 2.15 by what calls ``Tensor.item``, ``nonzero``, ``_unique`` or ``cudaStreamSynchronize``.
# While a ``TorchDispatchMode`` is active, as here, some functions take an implementation without a
# wait: ``BACKWARD`` and ``_waits_without_mode`` name what that hides.

Given = dict[str, Any]  # the arguments of an operation, by name


def _violations(
    func: Any, name: str, tensors: list[Tensor], args: tuple[Any, ...], kwargs: Any, to_host: bool
) -> Iterator[What]:
    """What a GPU would wait for or refuse in an operation on these tensors, for a host result."""
    if name in ("_to_copy", "copy_", "copy"):
        to_host = to_host or (name != "_to_copy" and tensors[0].device == HOST)
        if any(t.device == (META if to_host else HOST) for t in tensors):
            yield "to the host" if to_host else "to the device"
        return
    names = [argument.name for argument in func._schema.arguments]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    plain = name.rstrip("_")  # the same in place
    if torch.Tag.data_dependent_output in func.tags:
        yield "read"
    elif plain in INSIDE and INSIDE[plain](given):
        yield "inside"
    elif name.startswith(SOLVERS) or given.get("check_errors"):
        yield "solver"
    elif _shape_from_numbers(func, plain, given):
        yield "shape"
    elementwise = torch.Tag.pointwise in func.tags and name != "where"
    elementwise = elementwise or plain in AS_ARGUMENTS or _fills_a_mask(plain, given)
    if any(t.device == HOST and (t.dim() or not elementwise) for t in tensors):
        yield "mixed"


def _waits_without_mode(
    target: Tensor, *, weight: Any, label_smoothing: float, reduction: str, **_: Any
) -> bool:
    """Whether ``cross_entropy`` waits on a GPU, but not here: to select what is not ignored."""
    smoothed = weight is not None and label_smoothing > 0 and reduction == "mean"
    return smoothed and not target.is_floating_point()


def _on_device(given: Given, *names: str) -> bool:
    values = map(given.get, names)
    return any(isinstance(value, Tensor) and value.device == META for value in values)


def _many_to_find(given: Given) -> bool:
    """Whether ``isin`` sorts the elements, before which it removes duplicates."""
    elements, those = given.get("elements"), given.get("test_elements")
    if not isinstance(elements, Tensor) or not isinstance(those, Tensor):
        return False
    # The bound is torch's own.
    return not given.get("assume_unique") and those.numel() >= 10 * elements.numel() ** 0.145


# {operation: whether its GPU code reads a number, by its arguments}
INSIDE: dict[str, Callable[[Given], bool]] = {
    # These take a number; one in a tensor on the device is read.
    "masked_fill": lambda given: _on_device(given, "value"),
    "index_fill": lambda given: _on_device(given, "value"),
    "linspace": lambda given: _on_device(given, "start", "end"),
    "logspace": lambda given: _on_device(given, "start", "end"),
    "randint_like": lambda given: _on_device(given, "high"),
    # The range of the bins, where none is given.
    "histc": lambda given: given.get("min", 0) == given.get("max", 0),
    # Whether indices and lengths are valid.
    "searchsorted": lambda given: given.get("sorter") is not None,
    "segment_reduce": lambda given: given.get("lengths") is not None and not given.get("unsafe"),
    # How many terms of the series each matrix needs.
    "linalg_matrix_exp": lambda given: given["self"].shape[-1] > 1,
    # How many different values there are.
    "isin": _many_to_find,
    "mode": lambda given: given["self"].dim() and given["self"].shape[given.get("dim", -1)] > 2048,
    # It selects the places of the mask.
    "masked_scatter_backward": lambda given: True,
}
# {operation here in place of the wait: (the node of the backward pass, its function)}
BACKWARD = {"cumprod": ("ProdBackward", "prod"), "eq": ("CumprodBackward", "cumprod")}
# They read from the device whether they succeeded.
SOLVERS = (
    "_linalg_check_errors", "_linalg_eig", "_linalg_svd", "cholesky_inverse", "linalg_eig",
    "linalg_lstsq", "linalg_pinv",
)  # fmt: skip
# Besides elementwise operations: they accept a number in a host tensor.
AS_ARGUMENTS = ("fill", "masked_fill", "index_fill")


def _shape_from_numbers(func: Any, plain: str, given: Given) -> bool:
    if plain in ("index", "index_put"):
        return any(map(_is_mask, given["indices"])) and not _fills_a_mask(plain, given)
    sized = given.get("output_size") is not None  # of repeat_interleave
    return torch.Tag.dynamic_output_shape in func.tags and not sized


def _fills_a_mask(plain: str, given: Given) -> bool:
    """Whether one host number fills a mask; for one on the device torch lists its places."""
    if plain != "index_put" or given.get("accumulate"):
        return False
    indices = [index for index in given["indices"] if index is not None]
    alone = len(indices) == 1 and _is_mask(indices[0])
    return alone and given["values"].device == HOST and given["values"].numel() == 1


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


# Numbers that are read show in no operation, nor do lists that become tensors.
READING: dict[str, What] = {
    "numpy": "read", "__array__": "read", "tolist": "read", "__repr__": "print",
    "__format__": "print",
}  # fmt: skip
FROM_HOST = ("tensor", "as_tensor", "asarray")


class _Calls(TorchFunctionMode):
    def __init__(self, device: MetaDevice) -> None:
        super().__init__()
        self.device = device
        # Calls that made autograd nodes: number of the first one, of the first after it; where.
        self.nodes: list[tuple[int, int, Frames]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        frame, start = sys._getframe(1), private.next_autograd_number()
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        first = args[0] if args else None
        if isinstance(first, Tensor) and first.device == META:
            result = self._on_device(func, name, frame, first, args, kwargs)
        elif name in FROM_HOST and not isinstance(first, Tensor):
            args, target = self._read(args, name, frame), kwargs.get("device")
            there = target is not None and torch.device(target) == META
            result = func(*args, **(kwargs | {"device": HOST} if there else kwargs))
            result = self._sent(result, name, frame) if there else result
        else:
            result = func(*args, **kwargs)
        if (end := private.next_autograd_number()) > start:
            self.nodes.append((start, end, _frames(frame)))
        return result

    def frames_of(self, node: Any) -> Frames | None:
        """Where an autograd node was made; None: by no call that was seen."""
        number = node._sequence_nr()
        at = bisect_right(self.nodes, number, key=itemgetter(0)) - 1
        return self.nodes[at][2] if at >= 0 and number < self.nodes[at][1] else None

    def _on_device(
        self, func: Any, name: str, frame: FrameType, first: Tensor, args: Any, kwargs: Any
    ) -> Any:
        if name in READING:
            self.device.report(READING[name], name, frame)
            if name != "__repr__":
                return func(self.device.on_host(first), *args[1:], **kwargs)
        if name == "cross_entropy" and _waits_without_mode(args[1], **kwargs):
            self.device.report("inside", name, frame)
        if name == "new_tensor" and not isinstance(args[1], Tensor):
            data = self._read(args[1:], name, frame)
            made = torch.tensor(*data, **{"dtype": first.dtype, **kwargs, "device": HOST})
            return self._sent(made, name, frame)
        if name in ("__getitem__", "__setitem__"):
            args = (first, *_index_and_value(first, *args[1:]))
        return func(*args, **kwargs)

    def _read(self, data: Any, name: str, frame: FrameType) -> Any:
        """Data for a tensor, with the values of tensors on the device that it contains."""
        tensors = [leaf for leaf in private.tree_leaves(data) if isinstance(leaf, Tensor)]
        if any(tensor.device == META for tensor in tensors):
            self.device.report("read", name, frame)
            return self.device.on_host(data)
        return data

    def _sent(self, made: Tensor, name: str, frame: FrameType) -> Tensor:
        self.device.report("to the device", name, frame)
        with self.device.waits_allowed():
            return made.to(META)


def _is_list(index: Any) -> bool:
    return isinstance(index, list | np.ndarray)


def _index_and_value(of: Tensor, index: Any, *value: Any) -> tuple[Any, ...]:
    """An index, and what is assigned to it, as a GPU would get them."""
    parts = index if isinstance(index, tuple) else (index,)
    tensors = [part for part in parts if isinstance(part, Tensor) or _is_list(part)]
    if any(map(_is_list, tensors)):  # which is then reported as an index on the host
        index = private.tree_map_only((list, np.ndarray), torch.as_tensor, index, is_leaf=_is_list)
    elif value and isinstance(value[0], int | float) and list(map(_is_mask, tensors)) == [True]:
        # torch before 2.15 makes a tensor of the number: for a GPU on the host, else on the device.
        value = (torch.tensor(value[0], dtype=of.dtype),)
    return index, *value


def _frames(frame: FrameType) -> Frames:
    codes = [(frame.f_code, line) for frame, line in traceback.walk_stack(frame)]
    return tuple((c.co_filename, line, c.co_name) for c, line in codes if c.co_filename != __file__)


@contextmanager
def as_a_gpu(device: MetaDevice) -> Iterator[MetaDevice]:
    """Make torch's optimizers and autocast treat ``meta`` as a GPU."""
    replaced = _autocast()
    # torch decides by the device's name whether an optimizer may store its state there.
    for module in list(sys.modules.values()):
        for name in ("_get_capturable_supported_devices", "_get_foreach_kernels_supported_devices"):
            own = getattr(module, "__name__", "")
            if own.startswith("torch.optim") and name in vars(module):
                replaced[f"{own}.{name}"] = lambda *_, **__: [META.type]
    with ExitStack() as stack:
        for path, value in replaced.items():
            stack.enter_context(mock.patch(path, value))
        yield stack.enter_context(device)


def _autocast() -> dict[str, Callable[..., Any]]:
    """torch's switches of autocast, with one for ``meta`` that has a state and no effect."""
    state: dict[str, Any] = {"enabled": False, "dtype": torch.float16}  # CUDA's defaults
    on_meta: dict[str, Callable[..., Any]] = {
        "torch._C._is_autocast_available": lambda: True,
        "torch.is_autocast_enabled": lambda: state["enabled"],
        "torch.get_autocast_dtype": lambda: state["dtype"],
        "torch.set_autocast_enabled": lambda enabled: state.update(enabled=enabled),
        "torch.set_autocast_dtype": lambda dtype: state.update(dtype=dtype),
    }

    def switch(own: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: ours(*args[1:]) if args[:1] == (META.type,) else own(*args)

    return {path: switch(pkgutil.resolve_name(path), ours) for path, ours in on_meta.items()}
