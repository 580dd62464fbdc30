"""Building blocks for methods and backbones: per-task weights, normalization, stopped gradients.

Plugins import the names below from here. Other rooms may also import the modules ``norm`` (running
statistics for the engine), ``tasks`` and ``layers``.
"""

from fewshot_bench.nn.layers import NORM_EPSILON, Conv2d, Frozen, SamePad, glorot
from fewshot_bench.nn.norm import Statistics, TaskBatchNorm, unobserved, uses_batch_statistics
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
    "NORM_EPSILON", "Conv2d", "Frozen", "SamePad", "Statistics", "Strategy", "TaskBatchNorm",
    "double_backward", "glorot", "per_task", "per_task_strategy", "record", "replay", "replica",
    "stop", "task_weights", "unobserved", "uses_batch_statistics",
]  # fmt: skip
