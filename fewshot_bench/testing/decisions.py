"""Where ReLU and max-pooling decide in float32 what is undecided: float64 decides the same there.

A gradient jumps where a ReLU's input crosses 0, and where another of a pooling window's inputs
becomes the largest. An input that is there but for rounding falls one way in float32 and the other
in float64, either gradient is right, and inner steps amplify the difference to a percent and more.
To compare the arithmetic of both, the second has to stand on the same side as the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten

# An input is undecided if it is this near, in parts of the root mean square of all: 50 roundings of
# float32. torch's inaccurate sums in channels-last layout are off by more.
NEAR = 50 * torch.finfo(torch.float32).eps

Operation = Callable[..., Any]


class _Deciding(TorchDispatchMode):
    """Within it, this thread's operations that decide go through ``sign`` and ``largest``."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _SIGNS:
            return self.sign(func, args, kwargs)
        if func in _LARGEST:
            return self.largest(func, args, kwargs)
        return func(*args, **kwargs)

    def sign(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run an operation of ``_SIGNS``."""
        raise NotImplementedError

    def largest(
        self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Run an operation of ``_LARGEST``: its values and indices."""
        raise NotImplementedError


class Recorded(_Deciding):
    """Within it, this thread's decisions are written down, in order: ``decisions``."""

    def __init__(self) -> None:
        super().__init__()
        self.decisions: list[tuple[Operation, Tensor]] = []

    def sign(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        # Before the call, which may write over its input.
        self.decisions.append((func, args[_SIGNS[func]] > 0))
        return func(*args, **kwargs)

    def largest(
        self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        values, indices = func(*args, **kwargs)
        self.decisions.append((func, indices))
        return values, indices


class Replayed(_Deciding):
    """Within it, this thread decides as ``decisions`` have it, but only what is undecided.

    Where another operation comes than was written down, or one of another size, it and what
    follows are left alone.
    """

    def __init__(self, decisions: Sequence[tuple[Operation, Tensor]]) -> None:
        super().__init__()
        self._decisions = iter(decisions)

    def sign(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        at = _SIGNS[func]
        x = args[at]
        decided = self._next(func, x.shape)
        if decided is None:
            return func(*args, **kwargs)
        undecided = ((x > 0) != decided) & (x.abs() <= _near(x))
        # On the other side, as near as can be: the value stays, the derivative changes.
        least = torch.full_like(x, torch.finfo(x.dtype).tiny)
        moved = torch.where(undecided, torch.where(decided, least, -least), x)
        if func is aten.relu_.default:
            return func(x.copy_(moved))
        return func(*args[:at], moved, *args[at + 1 :], **kwargs)

    def largest(
        self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        values, indices = func(*args, **kwargs)
        decided = self._next(func, indices.shape)
        if decided is None:
            return values, indices
        x = args[0]
        if func is aten.max.dim:
            axis, keeps = args[1], len(args) > 2 and args[2]
            there = x.gather(axis, decided if keeps else decided.unsqueeze(axis))
        else:
            there = x.flatten(-2).gather(-1, decided.flatten(-2))
        undecided = values - there.view_as(values) <= _near(x)
        return values, torch.where(undecided, decided, indices)

    def _next(self, func: Any, shape: torch.Size) -> Tensor | None:
        """What was decided by this operation; None from where the course is another."""
        before, decided = next(self._decisions, (None, None))
        if decided is not None and before is func and decided.shape == shape:
            return decided
        self._decisions = iter(())
        return None


def _near(x: Tensor) -> Tensor:
    return NEAR * x.square().mean().sqrt()


# {operation: which of its arguments' signs decides}; the ReLU's output remembers that of its input
_SIGNS: dict[Operation, int] = {
    aten.relu.default: 0,
    aten.relu_.default: 0,
    aten.leaky_relu_backward.default: 1,
}
_LARGEST = (aten.max_pool2d_with_indices.default, aten.max.dim)
