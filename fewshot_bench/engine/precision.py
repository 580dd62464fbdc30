"""Precision of the arithmetic: full, TF32 products on a GPU, or bf16 where a method allows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from fewshot_bench.errors import ConfigError
from fewshot_bench.method import Method
from fewshot_bench.utils.devices import autocast

Name = Literal["fp32", "tf32", "bf16"]


@dataclass(frozen=True)
class Precision:
    """What convolutions and matrix products are computed in; weights and losses stay float32.

    ``tf32``: products of 10-bit mantissas on GPUs that have them (elsewhere the same as fp32);
    ``bf16``: torch's autocast.
    """

    name: Name = "fp32"

    @contextmanager
    def applied(self) -> Iterator[None]:
        switches: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
        before = [switch.fp32_precision for switch in switches]
        for switch in switches:
            switch.fp32_precision = "tf32" if self.name == "tf32" else "ieee"
        try:
            yield
        finally:
            for switch, value in zip(switches, before, strict=True):
                switch.fp32_precision = value

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """This thread's autocast; switched off unless the precision is bf16."""
        return autocast(device, torch.bfloat16 if self.name == "bf16" else None)


FP32 = Precision("fp32")


def choose_precision(name: str, method: Method) -> Precision:
    """The precision of this name.

    Raises:
        ConfigError: unknown, or bf16 for a method that does not declare ``autocast``.
    """
    known = get_args(Name)
    if name not in known:
        raise ConfigError(f"--precision: expected one of {', '.join(known)}, got '{name}'.")
    if name == "bf16" and not method.autocast:
        raise ConfigError(
            f"--precision bf16: {type(method).__name__} does not declare autocast = True; use "
            "--precision fp32 or tf32."
        )
    return Precision(name)  # type: ignore[arg-type]
