"""Building blocks for methods: per-task weights, normalization, stopped gradients."""

from fewshot_bench.nn.conv import Conv2d
from fewshot_bench.nn.frozen import Frozen
from fewshot_bench.nn.norm import TaskBatchNorm, unobserved, uses_batch_statistics
from fewshot_bench.nn.stop import record, replay, stop
from fewshot_bench.nn.tasks import (
    Strategy,
    double_backward,
    per_task,
    per_task_strategy,
    replica,
    task_weights,
)

__all__ = [
    "Conv2d",
    "Frozen",
    "Strategy",
    "TaskBatchNorm",
    "double_backward",
    "per_task",
    "per_task_strategy",
    "record",
    "replay",
    "replica",
    "stop",
    "task_weights",
    "unobserved",
    "uses_batch_statistics",
]
