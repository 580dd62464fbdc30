"""Ways to run a batch of tasks, all with the same numbers: eager, threads, graph.

:class:`Executor` is their base class; :func:`choose` makes the one for a method and a device.
"""

from __future__ import annotations

import logging

import torch

from fewshot_bench.engine.executors.base import (
    Eager,
    Executor,
    Gradients,
    Prediction,
    differentiate,
)
from fewshot_bench.engine.executors.graph import CudaGraphs
from fewshot_bench.engine.executors.threads import TaskThreads
from fewshot_bench.engine.precision import choose_precision
from fewshot_bench.errors import ConfigError
from fewshot_bench.method import Method
from fewshot_bench.utils.devices import has_graphs, is_gpu

__all__ = [
    "ENGINES", "CudaGraphs", "Eager", "Executor", "Gradients", "Prediction", "TaskThreads",
    "choose", "differentiate",
]  # fmt: skip

logger = logging.getLogger(__name__)

ENGINES = {
    "auto": "threads on a CPU, graph on a GPU",
    "eager": "a batch of tasks in one call",
    "threads": "CPU: a task at a time on each thread",
    "batched": "as eager, per-task weights by grouped convolutions",
    "im2col": "as eager, per-task weights by batched matrix products on a CPU too",
    "graph": "GPU: as eager, the whole step in a CUDA graph",
}


def choose(
    name: str,
    method: Method,
    device: torch.device,
    *,
    precision: str = "fp32",
    task_chunk: int | None = None,
) -> Executor:
    """The executor of this name, one of ``ENGINES``.

    Arguments:
        precision, task_chunk: see :class:`Executor`.

    Raises:
        ConfigError: unknown, or impossible for this method or device.
    """
    if name not in ENGINES:
        raise ConfigError(f"--engine: expected one of {', '.join(ENGINES)}, got '{name}'.")
    gpu, title = is_gpu(device), type(method).__name__
    threads, graphs = not gpu and method.batchable, has_graphs(device) and method.capturable
    exact = choose_precision(precision, method)
    if task_chunk is not None and not method.batchable:
        raise ConfigError(
            f"--task-chunk {task_chunk}: the tasks of {title} influence each other, so their batch "
            "cannot be split; leave it out."
        )
    if name == "threads" and not threads:
        raise ConfigError(
            "--engine threads needs a CPU and a method whose tasks are independent; "
            "use --engine eager."
        )
    if name == "graph" and not graphs:
        raise ConfigError(
            "--engine graph needs a GPU and a method that declares capturable = True; "
            "use --engine auto."
        )
    if name in ("batched", "im2col"):
        return Eager(method, name, strategy=name, precision=exact, task_chunk=task_chunk)  # type: ignore[arg-type]
    kind: type[Executor] = Eager
    if threads and name in ("auto", "threads"):
        kind = TaskThreads
    elif graphs and name in ("auto", "graph"):
        kind = CudaGraphs
    elif name == "auto" and gpu:
        logger.warning("engine: eager, because %s does not declare capturable = True", title)
    return kind(method, precision=exact, task_chunk=task_chunk)
