"""Running statistics that a test would normalize by although nothing measured them.

The loop collects what :class:`fewshot_bench.nn.TaskBatchNorm` sees in training mode, whatever a
method does. A method can still hide every pass of a layer (``nn.unobserved``), or set its momentum
to 0: the network then trains with the statistics of its batches and is tested with mean 0 and
variance 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from fewshot_bench.errors import PluginError
from fewshot_bench.method import Method, title_of
from fewshot_bench.nn import TaskBatchNorm
from fewshot_bench.nn.norm import observed

Layers = Mapping[str, TaskBatchNorm]


@dataclass
class Passes:
    """Names of the layers that were run in training mode, and in evaluation mode."""

    training: set[str] = field(default_factory=set)
    evaluation: set[str] = field(default_factory=set)


@contextmanager
def passes(layers: Layers) -> Iterator[Passes]:
    """Notes which of these layers are run meanwhile."""
    seen = Passes()

    def note(name: str, layer: nn.Module, _: Any) -> None:
        (seen.training if layer.training else seen.evaluation).add(name)

    with ExitStack() as stack:
        for name, layer in layers.items():
            hook = layer.register_forward_pre_hook(lambda m, x, name=name: note(name, m, x))
            stack.callback(hook.remove)
        yield seen


def running(method: Method) -> Layers:
    """Its layers that have running statistics, by name."""
    return {
        name: layer
        for name, layer in method.named_modules()
        if isinstance(layer, TaskBatchNorm) and layer.statistics == "running"
    }


def unmeasured(method: Method) -> Layers:
    """Those of them whose statistics are still the first ones: mean 0 and variance 1."""
    return {
        name: layer
        for name, layer in running(method).items()
        if not bool(layer.running_mean.any()) and bool((layer.running_var == 1).all())
    }


def require_collected(
    method: Method, tasks: int, losses: Callable[[], object], predict: Callable[[], object]
) -> None:
    """Before training: what a test normalizes by has to be something that training collects.

    Arguments:
        tasks: that ``losses`` is about.
        losses: calls the method in training mode.
        predict: calls it in evaluation mode.

    Raises:
        PluginError: every pass of a layer is hidden.
    """
    layers = running(method)
    with passes(layers) as trained, observed(method, tasks) as collected:
        losses()
    hidden = {n: layers[n] for n in trained.training if f"{n}.running_mean" not in collected}
    if hidden:
        with passes(hidden) as tested:
            predict()
        if tested.evaluation:
            raise PluginError(_never(method, min(tested.evaluation)))


def require_moved(
    method: Method, losses: Callable[[], object], predict: Callable[[], object]
) -> None:
    """After training; arguments as for :func:`require_collected`.

    Raises:
        PluginError: a layer trained with the statistics of its batches and is tested with those
            of its first moment.
    """
    if not (left := unmeasured(method)):
        return
    with passes(left) as tested:
        predict()
    with passes(left) as trained:
        losses()
    if both := tested.evaluation & trained.training:
        raise PluginError(_never(method, min(both)))


def _never(method: Method, layer: str) -> str:
    return (
        f"{title_of(method)}: the running statistics of '{layer}' never move, and a test would "
        "normalize by mean 0 and variance 1: losses() runs it in training mode inside "
        "nn.unobserved() only, or its momentum is 0. Let the passes of real images count."
    )


def note(method: Method, predict: Callable[[], object]) -> str | None:
    """What a reader has to know of a test that normalizes by statistics that nothing measured."""
    if not (left := unmeasured(method)):
        return None
    with passes(left) as tested:
        predict()
    if not tested.evaluation:
        return None
    count, first = len(tested.evaluation), min(tested.evaluation)
    return (
        f"{count} layers (the first: '{first}') normalize by mean 0 and variance 1, which nothing "
        "measured: they were never run in training mode"
    )
