"""Which lowering runs a method on a device."""

from __future__ import annotations

from collections.abc import Callable

import torch

from fewshot_bench.engine.executors.eager import Eager
from fewshot_bench.engine.executors.threads import TaskThreads
from fewshot_bench.engine.precision import choose_precision
from fewshot_bench.errors import ConfigError
from fewshot_bench.method import Method
from fewshot_bench.utils.devices import has_graphs, is_gpu

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
    tell: Callable[[str], None] = lambda _: None,
) -> Eager:
    """The lowering of this name.

    Arguments:
        name: one of ``ENGINES``. ``auto``: task threads on a CPU; on a GPU a CUDA graph, or eager
            (told in one line) for a method that does not declare itself ``capturable``.
        method: what is run.
        device: where.
        precision: see :class:`fewshot_bench.engine.precision.Precision`.
        task_chunk: tasks in a call at most; None: all.
        tell: takes the line.

    Raises:
        ConfigError: no such lowering, or not for this method or device.
    """
    if name not in ENGINES:
        raise ConfigError(f"no engine '{name}'. Known: {', '.join(ENGINES)}.")
    cpu = not is_gpu(device)
    exact = choose_precision(precision, method)
    if task_chunk is not None and not method.batchable:
        raise ConfigError(
            f"--task-chunk {task_chunk}: the tasks of {type(method).__name__} influence each "
            "other, so that their batch cannot be split; leave it out."
        )
    if name == "threads" and not (cpu and method.batchable):
        raise ConfigError(
            "--engine threads needs a CPU and a method whose tasks are independent; "
            "give --engine eager."
        )
    if name == "graph" and not (has_graphs(device) and method.capturable):
        raise ConfigError(
            "--engine graph needs a GPU and a method that declares itself capturable; "
            "give --engine auto."
        )
    if name == "threads" or (name == "auto" and cpu and method.batchable):
        return TaskThreads(method, precision=exact, task_chunk=task_chunk)
    if name in ("batched", "im2col"):
        return Eager(method, name, strategy=name, precision=exact, task_chunk=task_chunk)  # type: ignore[arg-type]
    graph = has_graphs(device) and method.capturable and name in ("auto", "graph")
    if name == "auto" and not cpu and not graph:
        tell(f"engine: eager, because {type(method).__name__} does not declare itself capturable")
    return Eager(
        method,
        "graph" if graph else "eager",
        precision=exact,
        task_chunk=task_chunk,
        graph=graph,
        tell=tell,
    )
