"""Ways to run a batch of tasks, all with the same numbers: eager, threads, graph.

:class:`Executor` is their base class; :func:`choose` makes the one for a method and a device.
"""

import logging
from typing import Any, get_args

import torch

from fewshot_bench.engine.executors.base import (
    Eager,
    Executor,
    Gradients,
    Precision,
    Prediction,
    TaskThreads,
    differentiate,
)
from fewshot_bench.engine.executors.graph import CudaGraphs
from fewshot_bench.errors import ConfigError
from fewshot_bench.method import Method
from fewshot_bench.utils.devices import has_graphs, is_gpu

__all__ = [
    "CudaGraphs", "Eager", "Executor", "Gradients", "Precision", "Prediction", "TaskThreads",
    "choose", "differentiate",
]  # fmt: skip

logger = logging.getLogger(__name__)

# auto: threads on a CPU, graph on a GPU; batched, im2col: eager with this strategy of nn.per_task
ENGINES = ("auto", "eager", "threads", "batched", "im2col", "graph")


def choose(
    name: str, method: Method, device: torch.device, *,
    precision: str = "fp32", task_chunk: int | None = None,
) -> Executor:  # fmt: skip
    """The executor of this name, one of ``ENGINES``; other arguments: see :class:`Executor`.

    ConfigError if a name is unknown, or impossible for this method or device.
    """
    if name not in ENGINES:
        raise ConfigError(f"--engine: expected one of {', '.join(ENGINES)}, got '{name}'.")
    gpu, title = is_gpu(device), type(method).__name__
    threads, graphs = not gpu and method.batchable, has_graphs(device) and method.capturable
    if precision not in (known := get_args(Precision)):
        raise ConfigError(f"--precision: expected one of {', '.join(known)}, got '{precision}'.")
    if precision == "bf16" and not method.autocast:
        raise ConfigError(
            f"--precision bf16: {title} does not declare autocast = True; use --precision fp32 or "
            "tf32."
        )
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
    settings: Any = {"precision": precision, "task_chunk": task_chunk}
    if name in ("batched", "im2col"):
        return Eager(method, name, strategy=name, **settings)  # type: ignore[arg-type]
    if threads and name in ("auto", "threads"):
        return TaskThreads(method, **settings)
    if graphs and name in ("auto", "graph"):
        return CudaGraphs(method, **settings)
    if name == "auto" and gpu:
        logger.warning("engine: eager, because %s does not declare capturable = True", title)
    return Eager(method, **settings)
