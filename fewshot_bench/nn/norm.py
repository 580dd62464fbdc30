"""Batch normalization that is right when a batch holds several tasks.

Statistics never cross the task axis: with T tasks in one flattened batch they are taken for each
task. Three things are handled here so that no method has to:

* ``torch.func.vmap`` of a gradient through an *affine* ``batch_norm`` gives silently wrong
  meta-gradients (off by up to 2.6 % against finite differences; torch 2.13 and 2.15). Under vmap
  the layer therefore has derivatives of its own (batch_norm.py).
* Running statistics are not changed in the forward pass. The training loop collects what they
  would become, for each task (:func:`observed`), and averages that over tasks. Every pass in
  training mode counts, but for those inside :func:`unobserved`.
* Whether the layer uses the statistics of the current batch at test time (which makes a method
  transductive: Finn et al. 2017's code does) is an argument, not an accident of train/eval mode.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot_bench.nn.batch_norm import batch_norm, channels_last
from fewshot_bench.utils.devices import is_gpu

Statistics = Literal["batch", "running"]
Observations = dict[nn.Module, list[tuple[Tensor, Tensor]]]  # layer: (mean, variance) of each pass


class _Context(threading.local):
    tasks: int = 1  # tasks in the flattened batch
    vmapped: bool = False
    strategy: str = "auto"  # how per-task weights are run; see tasks.py
    double_backward: bool = False  # what is computed will be differentiated twice; see tasks.py
    observer: Observations | None = None


context = _Context()


@contextmanager
def norm_context(**changes: object) -> Iterator[None]:
    """Set fields of this thread's context for a while."""
    before = {name: getattr(context, name) for name in changes}
    for name, value in changes.items():
        setattr(context, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)


class TaskBatchNorm(nn.Module):
    """Batch normalization over [N, C] or [N, C, H, W], for each task apart.

    Arguments:
        channels: C.
        statistics: ``"batch"``: of the current batch, in training and at test (transductive);
            ``"running"``: of the current batch in training, running averages at test.
        momentum: weight of a new observation in the running averages.
        eps: added to the variance.

    Calling it raises ValueError if the tasks of a batch do not have as many rows each.

    Source: Ioffe and Szegedy 2015; for its two uses in meta-learning, Bronskill et al. 2020.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        channels: int,
        statistics: Statistics = "batch",
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.statistics, self.momentum, self.eps = statistics, momentum, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        if statistics == "running":
            self.register_buffer("running_mean", torch.zeros(channels))
            self.register_buffer("running_var", torch.ones(channels))

    def extra_repr(self) -> str:
        return f"{self.weight.shape[-1]}, statistics={self.statistics}"

    def forward(self, x: Tensor) -> Tensor:
        if self.statistics == "running" and not self.training:
            return self._by_running_statistics(x)
        observer = context.observer if self.statistics == "running" else None
        if context.vmapped:
            y, *seen_here = batch_norm(x, self.weight, self.bias, self.eps)
            if observer is not None:
                observer.setdefault(self, []).append((seen_here[0], seen_here[1]))
            return y
        tasks = context.tasks
        if len(x) % tasks:
            raise ValueError(
                f"TaskBatchNorm got {len(x)} images of {tasks} tasks; each task has to have as "
                "many, one task after the other. Call the network once for each task."
            )
        if not is_gpu(x):
            if x.dtype not in (torch.float32, torch.float64):
                x = x.contiguous()  # the sums of half precision are accurate in no other layout
            if channels_last(x) or context.double_backward:
                return self._accurately(x, observer)
        seen = None
        if observer is not None:
            # batch_norm stores mean and unbiased variance (momentum 1) while it is at it: a pass
            # of their own would cost a fifth of a training step on a CPU.
            seen = self.running_mean.new_zeros(2, tasks, len(self.weight))
            observer.setdefault(self, []).append((seen[0], seen[1]))
        mean, variance = (None, None) if seen is None else seen.flatten(1).unbind()
        if tasks == 1:
            return F.batch_norm(x, mean, variance, self.weight, self.bias, True, 1.0, self.eps)
        # [T*N, C, ...] -> [N, T*C, ...]: each (task, channel) becomes a channel of its own.
        split = x.unflatten(0, (tasks, -1)).transpose(0, 1).flatten(1, 2)
        normal = F.batch_norm(split, mean, variance, None, None, True, 1.0, self.eps)
        return self._affine(normal.unflatten(1, (tasks, -1)).transpose(0, 1).flatten(0, 1))

    def _accurately(self, x: Tensor, observer: Observations | None) -> Tensor:
        """A task after the other; each keeps the layout of the images."""
        parts = [x] if context.tasks == 1 else x.unflatten(0, (context.tasks, -1)).unbind()
        each = [batch_norm(part, self.weight, self.bias, self.eps) for part in parts]
        y, mean, variance = zip(*each, strict=True)
        if observer is not None:
            observer.setdefault(self, []).append((torch.stack(mean), torch.stack(variance)))
        return y[0] if len(parts) == 1 else torch.cat(y)

    def _by_running_statistics(self, x: Tensor) -> Tensor:
        mean, variance = self.running_mean, self.running_var
        plain = context.vmapped or is_gpu(x) or not torch.is_grad_enabled()
        if plain or not channels_last(x):
            return F.batch_norm(x, mean, variance, self.weight, self.bias, False, 0.0, self.eps)
        # torch's gradients by weight and bias would be sums as inaccurate as its statistics.
        shape = (-1,) + (1,) * (x.dim() - 2)
        scale = self.weight * (variance + self.eps).rsqrt()
        return torch.addcmul(self.bias.view(shape), x - mean.view(shape), scale.view(shape))

    def _affine(self, x: Tensor) -> Tensor:
        shape = (-1,) + (1,) * (x.dim() - 2)
        return torch.addcmul(self.bias.view(shape), x, self.weight.view(shape))


@contextmanager
def observed(module: nn.Module, tasks: int) -> Iterator[dict[str, Tensor]]:
    """Collect what the running statistics below ``module`` would become; the engine's.

    Yields a dictionary that is filled when the block ends: {buffer name: [T, C]}. Several passes
    through one layer are averaged.

    Arguments:
        module: its layers are looked for; one that was not passed in training mode gives nothing.
        tasks: T.
    """
    buffers: dict[str, Tensor] = {}
    seen: Observations = {}
    with norm_context(observer=seen):
        yield buffers
    for name, layer in module.named_modules():
        if layer in seen and isinstance(layer, TaskBatchNorm):
            for buffer, values in zip(
                ("running_mean", "running_var"), zip(*seen[layer], strict=True), strict=True
            ):
                observation = torch.stack([_of_each_task(v, tasks) for v in values]).mean(0)
                buffers[f"{name}.{buffer}".lstrip(".")] = torch.lerp(
                    getattr(layer, buffer).expand_as(observation), observation, layer.momentum
                )


def _of_each_task(values: Tensor, tasks: int) -> Tensor:
    """What a pass saw, [T, C]; it may have had all tasks as one, or several for each."""
    if len(values) % tasks:
        return values.mean(0).expand(tasks, -1)
    return values if len(values) == tasks else values.unflatten(0, (tasks, -1)).mean(1)


def unobserved() -> AbstractContextManager[None]:
    """Hide passes from the running statistics, in this thread and for a while.

    For images that no test shows (a generator's) in ``losses``: they are normalized by their own
    statistics, and leave the running ones alone. All other passes in training mode count.
    """
    return norm_context(observer=None)


def uses_batch_statistics(module: nn.Module) -> bool:
    """Whether a layer below ``module`` normalizes test images by statistics of their batch."""
    return any(
        (isinstance(m, TaskBatchNorm) and m.statistics == "batch")
        or (isinstance(m, nn.modules.batchnorm._BatchNorm) and not m.track_running_stats)
        for m in module.modules()
    )
