"""Which operation does not repeat to the bit: the first whose inputs are equal and results are not.

A piece of work is run again and again. Of every operation, forward and backward, the checksum of
what goes in and of what comes out is kept: sums of integers, which no order of adding changes, so
that two are equal where the bits are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fewshot_bench.engine import anomalies

# What these give is memory as it is, or a place that is worked in: nobody's result.
RAW = (
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_",
    "_efficientzerotensor",
)  # fmt: skip
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
MOST = 10  # operations that are named
OUTSIDE = "something that is no operation of torch, before"  # a kernel of somebody's own


@dataclass(frozen=True)
class Call:
    """An operation as it ran.

    Arguments:
        name: of it.
        place: the line that it was called from; of a backward one, the line of its forward one;
            empty where nobody asked for it.
        inputs: what went in, for people: shape, type and layout of each tensor.
        before: checksums of what went in.
        after: checksums of what came out, or was changed in place.
    """

    name: str
    place: str
    inputs: tuple[str, ...]
    before: tuple[Tensor, ...]
    after: tuple[Tensor, ...]


class Recorder(TorchDispatchMode):
    """Keeps a :class:`Call` of every operation; nothing waits for the device.

    Arguments:
        places: look where each is called from.
    """

    def __init__(self, places: bool) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._places = places

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in RAW:
            return func(*args, **kwargs)
        given = tensors(args, kwargs)
        before = tuple(map(checksum, given))
        described = tuple(map(words, given))
        where = place() if self._places else ""
        result = func(*args, **kwargs)
        changed = tensors(*written(func, args, kwargs))
        results = [t for t in tensors(result) if not reserved(name, t)]
        after = tuple(checksum(t) for t in (*results, *changed))
        self.calls.append(Call(str(func), where, described, before, after))
        return result


def place() -> str:
    """Where the running operation stands, in words."""
    if torch._C._current_autograd_node() is not None:
        return anomalies._place()
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file != __file__ and anomalies._is_outside(file):
            return f"in {Path(file).name}, line {frame.f_lineno}"
        frame = frame.f_back
    return ""


def tensors(*values: Any) -> list[Tensor]:
    """Those among some values, in order."""
    return [v for v in tree_leaves(values) if isinstance(v, Tensor)]


def written(func: Any, args: Any, kwargs: Mapping[str, Any]) -> Iterator[Any]:
    """The arguments that an operation changes in place."""
    for i, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            if argument.name in kwargs:
                yield kwargs[argument.name]
            elif i < len(args):
                yield args[i]


def reserved(name: str, result: Tensor) -> bool:
    """Whether this is a library's own scratch memory, parts of which it never writes."""
    return result.dtype == torch.uint8 and "batch_norm" in name


def checksum(tensor: Tensor) -> Tensor:
    """Two sums of the bits, plain and weighted by place: on the tensor's device, not read yet."""
    if tensor.device.type == "meta" or not tensor.numel():
        return torch.zeros(2, dtype=torch.int64)
    flat = tensor.detach().resolve_conj().resolve_neg()
    if flat.is_complex():
        flat = torch.view_as_real(flat)
    flat = flat.contiguous().flatten()
    bits = flat.view(_INTEGERS[flat.element_size()]).to(torch.int64)
    places = torch.arange(1, 2 * len(bits), 2, device=bits.device)
    return torch.stack([bits.sum(), (bits * places).sum()])


def words(tensor: Tensor) -> str:
    """``float32[20, 64, 14, 14] channels-last``."""
    layout = ""
    if not tensor.is_contiguous():
        last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
        layout = " channels-last" if last else f" strides {tuple(tensor.stride())}"
    kind = str(tensor.dtype).removeprefix("torch.")
    return f"{kind}{list(tensor.shape)}{layout}"


@contextmanager
def traced() -> Iterator[None]:
    """Keep where each node of autograd was made."""
    before = torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()
    torch.autograd.set_detect_anomaly(True, check_nan=False)
    try:
        yield
    finally:
        torch.autograd.set_detect_anomaly(*before)


def record(work: Callable[[], Any], places: bool = False) -> list[Call]:
    """The operations of a piece of work."""
    recorder = Recorder(places)
    with traced() if places else nullcontext(), recorder:
        work()
    return recorder.calls


def find(work: Callable[[], Any], repeats: int = 5) -> list[dict[str, Any]]:
    """Operations whose results differ between two runs though their inputs do not.

    Arguments:
        work: from the same beginning each time.
        repeats: how often it is run again.

    Returns:
        The first call of each operation and line, in order; empty where everything repeats. Of
        work that is not the same operations each time, one that says so.
    """
    first = record(work, places=True)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for _ in range(repeats):
        other = record(work)
        names = [call.name for call in first]
        if names != [call.name for call in other]:
            at = next((i for i, (a, b) in enumerate(zip(first, other, strict=False))
                       if a.name != b.name), min(len(first), len(other)))  # fmt: skip
            return [{"operation": "other operations", "at": at, "of": len(names)}]
        equal_in, equal_out = equal(first, other, "before"), equal(first, other, "after")
        blamed = [i for i in range(len(first)) if equal_in[i] and not equal_out[i]]
        odd = [i for i in range(len(first)) if not equal_in[i] and not equal_out[i]]
        for i in blamed or odd[:1]:
            call = first[i]
            name = call.name if blamed else f"{OUTSIDE} {call.name}"
            seen = found.setdefault(
                (name, call.place),
                {
                    "operation": name, "place": call.place, "at": i, "of": len(first),
                    "inputs": list(call.inputs), "times": 0,
                },
            )  # fmt: skip
            seen["times"] += 1
    return sorted(found.values(), key=lambda one: one["at"])[:MOST]


def equal(first: list[Call], other: list[Call], side: str) -> list[bool]:
    """Whether each call's checksums are the same: read from the device at once."""
    pairs = [
        (i, a, b)
        for i, (one, two) in enumerate(zip(first, other, strict=True))
        for a, b in zip(getattr(one, side), getattr(two, side), strict=True)
    ]
    same = [True] * len(first)
    if not pairs:
        return same
    target = next((a.device for _, a, _ in pairs if a.device.type != "cpu"), torch.device("cpu"))
    a, b = (torch.stack([pair[k].to(target) for pair in pairs]).cpu() for k in (1, 2))
    for (i, _, _), alike in zip(pairs, (a == b).all(1).tolist(), strict=True):
        same[i] = same[i] and alike
    return same
