"""Stopped gradients that a finite-difference check can freeze.

First-order MAML, fakes that a discriminator does not differentiate through, and Reptile do not
follow the gradients of their losses, but those of a *surrogate* in which the stopped tensors are
constants. A method that calls :func:`stop` where it stops a gradient declares that surrogate:
:func:`record` saves the constants of one evaluation and :func:`replay` puts them into the next.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from torch import Tensor

from fewshot_bench.nn.norm import context, norm_context


def stop(tensor: Tensor) -> Tensor:
    """The tensor as a constant: ``tensor.detach()``, or the next constant of :func:`replay`."""
    if context.replaying is not None:
        return next(context.replaying)
    constant = tensor.detach()
    if context.recording is not None:
        context.recording.append(constant)
    return constant


@contextmanager
def record() -> Iterator[list[Tensor]]:
    """Collect every tensor that :func:`stop` sees in this thread, in order."""
    constants: list[Tensor] = []
    with norm_context(recording=constants):
        yield constants


def replay(constants: list[Tensor]) -> AbstractContextManager[None]:
    """A block in which :func:`stop` returns these constants, in order."""
    return norm_context(replaying=iter(constants))
