"""Our side of the work items: what each is, a step of it, and what it costs.

Every figure in ``results/`` refers to these items. Networks, tasks and rates are those of
``peers/common.py``, through the toolkit's own loop, sampler and evaluation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from fewshot_bench.cli._heap import keep_freed_memory
from fewshot_bench.config.resolve import configure
from fewshot_bench.config.schema import RunConfig
from fewshot_bench.engine.evaluation import evaluate
from fewshot_bench.engine.executors import Eager, choose
from fewshot_bench.engine.memory import cost_of_step
from fewshot_bench.engine.training import Plan, Trainer
from fewshot_bench.method import Method
from fewshot_bench.nn import Strategy
from fewshot_bench.runs.context import RunContext
from fewshot_bench.runs.prepare import episodes, method_task, new_method
from fewshot_bench.sampling.base import EpisodeSource

EVALUATED = 60  # test episodes of a step of W4; its rate is that of 600
MANY_EVALUATED = 10_000  # where every image is embedded once
DELIVERED = 64  # episodes of a batch of W3

_MAML = {
    "method": "maml",
    "backbone": "conv4-strided",
    "pooling": "mean",
    "inner_lr": 0.1,
    "inner_steps": 5,
    "first_order": False,
    "anneal": False,
    "lr": 1e-3,
    "task_batch": 32,
}
_PROTONET = {
    "method": "protonet",
    "backbone": "conv4",
    "backbone_statistics": "running",
    "train_way": 5,
    "train_query": 15,
    "task_batch": 1,
}
SETTINGS: Mapping[str, dict[str, Any]] = {
    "W1_second_order": _MAML,
    "W1_first_order": _MAML | {"first_order": True},
    "W1_one_shot_one_step": _MAML | {"inner_steps": 1, "shot": 1},
    "W2_5way": _PROTONET,
    "W2_60way": _PROTONET | {"train_way": 60, "train_query": 5},
    "W3": _PROTONET,
    "W4_maml": _MAML,
    "W4_protonet_batch_statistics": _PROTONET | {"backbone_statistics": "batch"},
    "W4_protonet_running_statistics": _PROTONET,
    "W5": {"method": "metagan"},  # and the preset tutorial, which only Omniglot has
}
TRAINED = ("W1_second_order", "W1_first_order", "W1_one_shot_one_step", "W2_5way", "W2_60way", "W5")
UNITS = {"W2_5way": "steps/s", "W2_60way": "steps/s", "W3": "episodes/s"}  # the others: tasks/s


@dataclass(frozen=True)
class Work:
    """A prepared item.

    Arguments:
        step: does the smallest piece of work that makes sense; returns its units.
        flops_per_unit: operations of convolutions and matrix products; 0: none are counted.
        bytes_per_unit: memory that has to be written; 0: arithmetic is the limit.
        executor: steps are taken inside its ``running()`` block.
        trainer: of a training item.
    """

    step: Callable[[], int]
    flops_per_unit: float
    bytes_per_unit: float
    executor: Eager
    trainer: Trainer | None = None


def unit(item: str) -> str:
    """What the rate of an item counts."""
    return UNITS.get(item, "tasks/s")


def prepare(
    item: str,
    device: torch.device,
    *,
    small: bool = False,
    engine: str = "auto",
    precision: str = "fp32",
    strategy: Strategy | None = None,
) -> Work:
    """Build an item.

    Arguments:
        item: a key of ``SETTINGS``.
        device: where.
        small: pieces of a fraction of a second, for tests.
        engine, precision: see ``fsb run``.
        strategy: how per-task weights are run, in place of what the engine chooses.
    """
    keep_freed_memory()  # as the command line does
    settings = settings_of(item)
    if item == "W5" and device.type == "cpu":
        settings["task_batch"] = 2  # a step of 32 tasks would take minutes
    if item == "W5" and settings["dataset"] == "omniglot":
        settings |= {"preset": "tutorial", "validation": "alphabets"}
    if small:
        settings["task_batch"] = min(2, settings.get("task_batch", 2))
    config = configure(settings.pop("method"), **settings, steps=10**6, device=str(device))
    context = RunContext(config)
    method = new_method(context, method_task(context))
    executor = choose(engine, method, device, precision=precision)
    if strategy is not None:
        executor.strategy = strategy
    split = "train" if item in TRAINED else "test"
    source = episodes(context, split)
    if item == "W3":
        return _delivery(source, Eager(method), small)
    if item in TRAINED:
        return _training(item, method, executor, source, config)
    return _evaluation(item, executor, source, small)


def settings_of(item: str) -> dict[str, Any]:
    """What an item's run is configured with; ``method`` among it."""
    return {"dataset": dataset(), "way": 5, "shot": 5, "query": 15} | SETTINGS[item]


def dataset() -> str:
    """Omniglot where its files are at hand, else the built-in characters."""
    root = os.environ.get("FSB_DATA")
    return "omniglot" if root and (Path(root) / "omniglot").is_dir() else "glyphs"


def _training(
    item: str, method: Method, executor: Eager, source: EpisodeSource, config: RunConfig
) -> Work:
    plan = Plan(10**6, config.task_batch, window=1 if source.table.device.type == "cpu" else 50)
    trainer = Trainer(method, executor, source, plan)
    cost = cost_of_step(method, executor, source, trainer.players, config.task_batch)
    method.train()
    each = 1 if unit(item) == "steps/s" else plan.task_batch

    def step() -> int:
        trainer.advance()
        if trainer.step % plan.window == 0:
            trainer.flush()
        return each

    return Work(step, cost.flops / each, 0, executor, trainer)


def _delivery(source: EpisodeSource, executor: Eager, small: bool) -> Work:
    size, images = (8 if small else DELIVERED), source.task.way * source.task.images_per_class
    numbers = iter(range(0, 10**12, size))
    count = 1 if small else 20

    def step() -> int:
        for _ in range(count):
            first = next(numbers)
            source.batch(range(first, first + size))
        return size * count

    channels, height, width = source.table.image_shape
    # A byte is read and a float is written for each pixel.
    return Work(step, 0, images * channels * height * width * 5, executor)


def _evaluation(item: str, executor: Eager, source: EpisodeSource, small: bool) -> Work:
    once = item == "W4_protonet_running_statistics"
    count = MANY_EVALUATED if once else EVALUATED
    if small:
        count = 200 if once else 4
    flops = flops_of_task(executor, source)
    if once:  # the work that has to be done: each image of the split once
        flops *= len(source.table.images) / (count * source.task.way * source.task.images_per_class)

    def step() -> int:
        evaluate(executor, source, count, chunk=32)
        return count

    return Work(step, flops, 0, executor)


def flops_of_task(executor: Eager, source: EpisodeSource) -> float:
    """Operations of convolutions and matrix products that one evaluated task needs."""
    executor.method.eval()
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        episode: Any = source.batch(range(1))
        with executor.set_up(episode.query.device):
            state = executor.method.adapt(episode.support)
            executor.method.predict(state, episode.query)
    return float(counter.get_total_flops())


def write_arrays(path: Path) -> None:
    """The images that the peers are given: train and test, uint8 [classes, 20, 1, 28, 28]."""
    config = configure("nearest-centroid", dataset=dataset())
    splits = RunContext(config).data.splits

    def classes(images: Any) -> Any:
        return np.asarray(images.images).reshape(len(images.counts), -1, *images.image_shape)

    np.savez(path, train=classes(splits.train), test=classes(splits.test))
