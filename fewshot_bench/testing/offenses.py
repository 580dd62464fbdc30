"""What a GPU would wait for, or refuse, in an operation on tensors of ``meta`` and of the host.

torch marks some operations whose result depends on numbers (``torch.Tag``). The lists here are the
others whose code for a GPU reads numbers of the device on the host. They were found in the
libraries of torch 2.15, by what calls ``Tensor.item``, ``nonzero``, ``_unique`` or
``cudaStreamSynchronize``; a newer torch may wait less.

Some functions of torch have two ways, of which they take the one without a wait while a
``TorchDispatchMode`` is active, as on the stand-in: :func:`in_backward` and :func:`under_no_mode`
name what is hidden by that.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

META, HOST = torch.device("meta"), torch.device("cpu")
What = Literal[
    "read", "inside", "shape", "print", "solver", "to the host", "to the device", "mixed"
]
ON_DEVICE = "make it there (device=x.device, torch.full, torch.arange), or once, {once}"
# {what is seen: what it means, what to do instead}
ADVICE: dict[What, tuple[str, str]] = {
    "read": (
        "waits for the device, because it reads a number on the host ({})",
        "keep it a tensor, with torch.where in place of a branch{show}",
    ),
    "inside": (
        "waits for the device, because it reads a number on the host ({})",
        "use an operation that keeps it on the device, as torch.where(mask, value, x)",
    ),
    "shape": (
        "waits for the device, because numbers decide how large its result is ({})",
        "keep shapes fixed: torch.where, or multiply by the mask",
    ),
    "print": (
        "waits for the device, because it prints a tensor",
        "leave it out{show}",
    ),
    "solver": (
        "waits for the device, to know whether a solver succeeded ({})",
        "use a form that does not ask, as torch.linalg.solve_ex",
    ),
    "to the host": ("waits for the device, because it copies a tensor to the host ({})",
                    "leave it where it is"),
    "to the device": ("copies to the device from the host, which a GPU waits for ({})", ON_DEVICE),
    "mixed": ("mixes a tensor on the host with tensors on the device ({})", ON_DEVICE),
}  # fmt: skip
Given = dict[str, Any]  # the arguments of an operation, by their names


def offenses(
    func: Any, name: str, tensors: list[Tensor], args: tuple[Any, ...], kwargs: Any
) -> Iterator[What]:
    """What a GPU would wait for or refuse in an operation.

    Arguments:
        func: the operation, of this name.
        tensors: all that it is given.
        args, kwargs: as it is given them; a ``device`` among the latter is where its result is to
            be.
    """
    onto = kwargs.get("device")
    to_host = onto is not None and torch.device(onto) != META
    copies = name in ("_to_copy", "copy_", "copy")
    if copies and (to_host or (name != "_to_copy" and tensors[0].device == HOST)):
        if any(t.device == META for t in tensors):
            yield "to the host"
        return
    if copies:
        if any(t.device == HOST for t in tensors):
            yield "to the device"
        return
    given = _by_name(func, args, kwargs)
    plain = name.rstrip("_")  # the same in place
    if torch.Tag.data_dependent_output in func.tags:
        yield "read"
    elif plain in INSIDE and INSIDE[plain](given):
        yield "inside"
    elif name.startswith(SOLVERS) or given.get("check_errors"):
        yield "solver"
    elif _shape_by_numbers(func, plain, given):
        yield "shape"
    by_element = torch.Tag.pointwise in func.tags and name != "where"
    by_element = by_element or plain in AS_ARGUMENTS or _fills_a_mask(plain, given)
    if any(t.device == HOST and (t.dim() or not by_element) for t in tensors):
        yield "mixed"


def in_backward(node: str, name: str) -> str | None:
    """The function whose backward pass waits on a GPU, though not on the stand-in.

    Arguments:
        node: the name of the autograd node that is at work.
        name: of an operation that it does.

    Returns:
        The function's name; None: a GPU does not wait either.
    """
    for function, (its_node, instead) in BACKWARD.items():
        if node.startswith(its_node) and name == instead:
            return function
    return None


def under_no_mode(name: str, args: tuple[Any, ...], kwargs: Any) -> bool:
    """Whether a function waits on a GPU, though not on the stand-in.

    For the mean over smoothed labels ``cross_entropy`` sums the weights of the targets that are not
    ignored, which it selects on a GPU.
    """
    if name != "cross_entropy":
        return False
    given = inspect.signature(F.cross_entropy).bind(*args, **kwargs)
    given.apply_defaults()
    loss = given.arguments
    classes = not loss["target"].is_floating_point()
    smoothed = loss["weight"] is not None and loss["label_smoothing"] > 0
    return classes and smoothed and loss["reduction"] == "mean"


def _by_name(func: Any, args: tuple[Any, ...], kwargs: Any) -> Given:
    names = [argument.name for argument in func._schema.arguments]
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _on_device(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device == META


def _value_on_device(given: Given) -> bool:
    return _on_device(given.get("value"))


def _end_on_device(given: Given) -> bool:
    return _on_device(given["start"]) or _on_device(given["end"])


def _many_to_find(given: Given) -> bool:
    """Whether ``isin`` sorts what is looked for, for which it first leaves out duplicates."""
    elements, those = (given.get(name) for name in ("elements", "test_elements"))
    if not isinstance(elements, Tensor) or not isinstance(those, Tensor):
        return False
    # The bound is torch's own.
    return not given.get("assume_unique") and those.numel() >= 10 * elements.numel() ** 0.145


def _many_to_count(given: Given) -> bool:
    """Whether ``mode`` sorts rather than counts in one kernel; the bound is torch's own."""
    shape = given["self"].shape
    return bool(shape) and shape[given.get("dim", -1)] > 2048


# {operation: whether its code for a GPU reads a number, by its arguments}
INSIDE: dict[str, Callable[[Given], bool]] = {
    # These take a number; one that a tensor of the device holds is read.
    "masked_fill": _value_on_device,
    "index_fill": _value_on_device,
    "linspace": _end_on_device,
    "logspace": _end_on_device,
    "randint_like": lambda given: _on_device(given.get("high")),
    # The range of the bins, where none is given.
    "histc": lambda given: given.get("min", 0) == given.get("max", 0),
    # Whether indices and lengths are valid.
    "searchsorted": lambda given: given.get("sorter") is not None,
    "segment_reduce": lambda given: given.get("lengths") is not None and not given.get("unsafe"),
    # How many terms of the series each matrix needs.
    "linalg_matrix_exp": lambda given: given["self"].shape[-1] > 1,
    # How many different values there are.
    "isin": _many_to_find,
    "mode": _many_to_count,
    # It selects the places of the mask.
    "masked_scatter_backward": lambda given: True,
}
# {function: (the node of its backward pass, what that does on the stand-in in place of a wait)}
BACKWARD = {"prod": ("ProdBackward", "cumprod"), "cumprod": ("CumprodBackward", "eq")}
# They look at the device's word on whether they succeeded.
SOLVERS = (
    "_linalg_check_errors", "_linalg_eig", "_linalg_svd", "cholesky_inverse", "linalg_eig",
    "linalg_lstsq", "linalg_pinv",
)  # fmt: skip
# Beside all that goes element by element: they take a number that a tensor on the host holds.
AS_ARGUMENTS = ("fill", "masked_fill", "index_fill")


def _shape_by_numbers(func: Any, plain: str, given: Given) -> bool:
    """Whether a result has as many elements as the numbers in a tensor decide."""
    if plain in ("index", "index_put"):
        return any(map(is_mask, given["indices"])) and not _fills_a_mask(plain, given)
    if given.get("output_size") is not None:  # of repeat_interleave
        return False
    return torch.Tag.dynamic_output_shape in func.tags


def _fills_a_mask(plain: str, given: Given) -> bool:
    """Whether one number of the host goes to all places of a mask, which needs no look for them.

    One of the device does not: torch then lists the places, whose number it waits for.
    """
    if plain != "index_put" or given.get("accumulate"):
        return False
    indices = [index for index in given["indices"] if index is not None]
    alone = len(indices) == 1 and is_mask(indices[0])
    return alone and given["values"].device == HOST and given["values"].numel() == 1


def is_mask(index: Any) -> bool:
    """Whether a part of an index says yes or no for each place."""
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)
