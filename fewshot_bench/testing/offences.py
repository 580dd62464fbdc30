"""What a GPU would wait for, or refuse, in an operation on tensors of ``meta`` and of the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

META, HOST = torch.device("meta"), torch.device("cpu")
What = Literal["read", "shape", "print", "solver", "to the host", "to the device", "mixed"]
ON_DEVICE = "make it there (device=x.device, torch.full, torch.arange), or once, {once}"
# {what is seen: what it means, what to do instead}
ADVICE: dict[What, tuple[str, str]] = {
    "read": (
        "waits for the device, because it reads a number on the host ({})",
        "keep it a tensor, with torch.where in place of a branch{show}",
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
# Beside what torch itself says of an operation (``torch.Tag``): what its kernels for a GPU read.
READS = ("multinomial", "histc")
READS_A_TENSOR = ("linspace", "logspace")  # as one of their ends
SHAPES = ("embedding_renorm",)
# They look at the device's word on whether they succeeded.
SOLVERS = (
    "_linalg_check_errors", "_linalg_eigh", "_linalg_svd", "linalg_eig", "linalg_lstsq",
    "linalg_pinv",
)  # fmt: skip
COPIED_AS_ARGUMENTS = ("fill", "masked_fill")  # beside all that goes element by element


def offences(
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
    ends = name in READS_A_TENSOR and any(t.device == META for t in tensors)
    if torch.Tag.data_dependent_output in func.tags or name.startswith(READS) or ends:
        yield "read"
    elif name.startswith(SOLVERS):
        yield "solver"
    elif _shape_by_numbers(func, name, args, kwargs):
        yield "shape"
    by_element = torch.Tag.pointwise in func.tags and name != "where"
    by_element = by_element or name.rstrip("_") in COPIED_AS_ARGUMENTS
    if any(t.device == HOST and (t.dim() or not by_element) for t in tensors):
        yield "mixed"


def _shape_by_numbers(func: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> bool:
    """Whether a result has as many elements as the numbers in a tensor decide."""
    if name in ("index", "index_put", "index_put_"):
        masks = [
            i for i in args[1] if isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8)
        ]
        # One number for all places of a mask is filled in without looking for them.
        return bool(masks) and (name == "index" or args[2].numel() != 1)
    if kwargs.get("output_size") is not None:  # of repeat_interleave
        return False
    return torch.Tag.dynamic_output_shape in func.tags or name.startswith(SHAPES)
