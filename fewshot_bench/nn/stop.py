"""Stopped gradients that a finite-difference check can freeze.

First-order MAML, fakes that a discriminator does not differentiate through, and Reptile do not
follow the gradients of their losses, but those of a *surrogate* in which the stopped tensors are
constants. A method that calls :func:`stop` where it stops a gradient declares that surrogate:
:func:`record` saves the constants of one evaluation and :func:`replay` puts them into the next.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor


class _Tape(threading.local):
    recording: list[Tensor] | None = None
    replaying: Iterator[Tensor] | None = None


_tape = _Tape()


def stop(tensor: Tensor) -> Tensor:
    """The tensor as a constant: ``tensor.detach()``, or the next constant of :func:`replay`."""
    if _tape.replaying is not None:
        return next(_tape.replaying)
    constant = tensor.detach()
    if _tape.recording is not None:
        _tape.recording.append(constant)
    return constant


@contextmanager
def record() -> Iterator[list[Tensor]]:
    """Collect every tensor that :func:`stop` sees, in order."""
    _tape.recording = []
    try:
        yield _tape.recording
    finally:
        _tape.recording = None


@contextmanager
def replay(constants: list[Tensor]) -> Iterator[None]:
    """Let :func:`stop` return these constants, in order."""
    _tape.replaying = iter(constants)
    try:
        yield
    finally:
        _tape.replaying = None
