"""Running a module over a batch of tasks, with shared weights or a weight set for each task.

On a CPU a loop over tasks is fastest (grouped convolutions and im2col were measured 2 to 4 times
slower); on a GPU the weights are batched with ``torch.func.vmap``, which shares each kernel launch
among all tasks, and convolutions are batched matrix products (columns.py). The engine can choose
(:func:`per_task_strategy`); all strategies give the same numbers.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fewshot_bench.nn.columns import MatrixProducts
from fewshot_bench.nn.norm import Observations, context, norm_context
from fewshot_bench.utils.devices import is_gpu

Weights = Mapping[str, Tensor]
M = TypeVar("M", bound=nn.Module)
# auto: by the device; looped: a task after the other; batched: vmap, whose convolutions are
# grouped; im2col: vmap, with convolutions as batched matrix products
Strategy = Literal["auto", "looped", "batched", "im2col"]


def per_task_strategy(strategy: Strategy) -> AbstractContextManager[None]:
    """A block in which :func:`per_task` runs weight sets like this (in this thread)."""
    return norm_context(strategy=strategy)


def double_backward(expected: bool = True) -> AbstractContextManager[None]:
    """A block whose gradients will be differentiated again (in this thread).

    Changes no number: on a CPU, :class:`TaskBatchNorm` then has a second derivative that is cheap.
    """
    return norm_context(double_backward=expected)


def task_weights(module: nn.Module, tasks: int) -> dict[str, Tensor]:
    """The module's parameters, once for each task: {name: [T, ...]} (views, not copies).

    Gradients by them are per task, those by the module's own parameters flow through. Where these
    are frozen, the copies are leaves of their own.
    """
    weights = {}
    for name, parameter in module.named_parameters():
        expanded = parameter.expand(tasks, *parameter.shape)
        if not parameter.requires_grad:
            expanded = expanded.detach().requires_grad_()
        weights[name] = expanded
    return weights


def per_task(module: nn.Module, x: Tensor, weights: Weights | None = None) -> Tensor:
    """Apply a module to the images of each task.

    Arguments:
        module: from [N, ...] to [N, ...].
        x: [T, N, ...].
        weights: {parameter name: [T, ...]}, a weight set for each task; None: the module's own
            weights for all. Parameters that are not named are the module's own.

    Returns:
        [T, N, ...].
    """
    tasks = x.shape[0]
    if weights is None:
        with norm_context(tasks=tasks):
            y = module(x.flatten(0, 1))
        return y.unflatten(0, (tasks, -1))
    strategy = context.strategy
    if strategy == "auto":
        strategy = "looped" if not is_gpu(x) or tasks == 1 else "im2col"
    if strategy == "looped":
        return _looped(module, x, weights)
    with MatrixProducts() if strategy == "im2col" else nullcontext():
        return _batched(module, x, weights)


def _everywhere(module: nn.Module, weights: Weights) -> dict[str, Tensor]:
    """The weights under the name of every place that they are used in: shared ones have several.

    ``functional_call`` itself leaves its tensors behind in a module in two places (torch 2.15).
    """
    named = module.named_parameters(remove_duplicate=False)
    of = {parameter: weights[name] for name, parameter in named if name in weights}
    return {
        name: of[parameter]
        for prefix, child in module.named_modules()
        for name, parameter in child.named_parameters(prefix, recurse=False, remove_duplicate=False)
        if parameter in of
    }


def _looped(module: nn.Module, x: Tensor, weights: Weights) -> Tensor:
    outputs, seen = [], []
    weights = _everywhere(module, weights)
    for t in range(x.shape[0]):
        own = {name: weight[t] for name, weight in weights.items()}
        with _collected() as statistics:
            outputs.append(functional_call(module, own, (x[t],), tie_weights=False))
        seen.append(statistics)
    for layer in seen[0]:
        for values in zip(*(statistics[layer] for statistics in seen), strict=True):
            mean, variance = (torch.cat(column) for column in zip(*values, strict=True))
            _report(layer, mean, variance)
    return torch.stack(outputs)


def _batched(module: nn.Module, x: Tensor, weights: Weights) -> Tensor:
    """One call for all tasks. Running statistics seen inside leave as outputs of the vmap."""
    layers: list[nn.Module] = []

    def one(own: dict[str, Tensor], images: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        with norm_context(vmapped=True), _collected() as seen:
            y = functional_call(module, own, (images,), tie_weights=False)
        layers.extend(layer for layer, values in seen.items() for _ in values)
        return y, [value for values in seen.values() for value in values]

    y, statistics = vmap(one)(_everywhere(module, weights), x)
    for layer, (mean, variance) in zip(layers, statistics, strict=True):
        _report(layer, mean, variance)
    return y


@contextmanager
def _collected() -> Iterator[Observations]:
    """Divert running statistics, where they are observed, into a dictionary of their own."""
    seen: Observations = {}
    with norm_context(tasks=1, observer=seen if context.observer is not None else None):
        yield seen


def _report(layer: nn.Module, mean: Tensor, variance: Tensor) -> None:
    assert context.observer is not None
    context.observer.setdefault(layer, []).append((mean, variance))


def replica(module: M) -> M:
    """A structural copy that shares parameters and buffers; one for each thread, because
    ``functional_call`` swaps a module's tensors in place while it runs."""
    return cast(M, _replica(module, {}))


def _replica(module: nn.Module, twins: dict[nn.Module, nn.Module]) -> nn.Module:
    """``twins``: those made so far, so that a module in two places has one."""
    if module in twins:
        return twins[module]
    twin = twins[module] = module.__new__(type(module))
    children = {
        name: None if child is None else _replica(child, twins)
        for name, child in module._modules.items()
    }
    own = {"_parameters": dict(module._parameters), "_buffers": dict(module._buffers)}
    twin.__dict__ = {**module.__dict__, **own, "_modules": children}
    return twin
