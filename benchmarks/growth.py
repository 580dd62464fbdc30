"""How the cost of a step grows: with way, shot, inner steps, task batch, image size, classes.

    uv run python benchmarks/growth.py

Writes ``results/<date>-<device>-growth.md``. Everything on the built-in characters, with the quick
networks. Beside each time stands its ratio to the first row of its block, and what the ratio would
be if cost were proportional to the images that pass the network.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from limit import measure
from table import describe_machine, number

from fewshot_bench.config.resolve import configure
from fewshot_bench.engine.executors import choose
from fewshot_bench.engine.training import Plan, Trainer
from fewshot_bench.runs.context import RunContext
from fewshot_bench.runs.prepare import episodes, method_task, new_method

BASE: dict[str, Any] = {
    "dataset": "glyphs",
    "train_classes": 64,
    "validation_classes": 0,
    "test_classes": 64,
    "way": 5,
    "shot": 5,
    "query": 15,
    "task_batch": 4,
}
MAML = BASE | {"method": "maml", "train_query": 15, "inner_steps": 5}
PROTONET = BASE | {"method": "protonet", "train_way": 5, "train_query": 15}
# block: the setting that grows, its values, all other settings
BLOCKS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "way (protonet)": ("train_way", (5, 10, 20, 60), PROTONET | {"task_batch": 1}),
    "shot (maml)": ("shot", (1, 5), MAML),
    "inner steps (maml)": ("inner_steps", (1, 2, 5, 10), MAML),
    "task batch (maml)": ("task_batch", (1, 2, 4, 8, 16, 32), MAML),
    "image size (protonet)": ("image_size", (28, 56, 84), PROTONET | {"task_batch": 2}),
}
CLASSES = (100, 1_000, 10_000, 50_000)  # of 20 images: up to a million
SAMPLED = 32  # episodes of a batch


def main() -> None:
    parser = argparse.ArgumentParser(description="How the cost of a step grows.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="a check that it works, no figures")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    machine = describe_machine(device, measure(device))
    lines = [
        f"# Growth, {machine['date']}, {machine['device']}",
        "",
        f"`uv run python benchmarks/growth.py`, torch {machine['torch']}. Medians of steps.",
        "",
        "| block | value | ms a step | ratio | images' ratio |",
        "|---|---|---|---|---|",
    ]
    for row in rows(device, arguments.small):
        lines.append(f"| {' | '.join(row)} |")
        print(lines[-1], flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{machine['date']}-{machine['short']}-growth.md"
    path.write_text("\n".join(lines) + "\n", "utf-8")


def rows(device: torch.device, small: bool) -> Iterator[tuple[str, ...]]:
    """The rows of the table."""
    for block, (name, values, settings) in BLOCKS.items():
        first: tuple[float, float] | None = None
        for value in values[: 1 if small else None]:
            step = grown(settings | {name: value}, device, 2 if small else 7)
            ms, images = step.ms, step.images
            first = first or (ms, images)
            ratios = (f"{ms / first[0]:.2f}", f"{images / first[1]:.2f}")
            yield block, f"{value}", number(ms), *ratios
    least = None
    for classes in (20,) if small else CLASSES:
        ms = sampling_ms(classes, device)
        least = least or ms
        yield (
            f"classes (sampling {SAMPLED} episodes)", f"{classes:,} ({classes * 20:,} images)",
            number(ms), f"{ms / least:.2f}", "1.00",
        )  # fmt: skip


@dataclass(frozen=True)
class Grown:
    """A step of some size.

    Arguments:
        ms: median time.
        images: that pass the network in it, inner passes included, times their pixels.
        short: tasks that were in memory at the same time, where it was too short for all.
    """

    ms: float
    images: float
    short: int | None


def grown(settings: dict[str, Any], device: torch.device, steps: int) -> Grown:
    """Train for a few steps, the first two of which warm up."""
    named = {**settings, "steps": steps + 2}
    config = configure(named.pop("method"), **named, device=str(device))
    context = RunContext(config)
    task = method_task(context)
    method = new_method(context, task)
    executor = choose("auto", method, device)
    source = episodes(context, "train")
    trainer = Trainer(method, executor, source, Plan(steps + 2, config.task_batch))
    method.train()
    with executor.running():
        for _ in range(steps + 2):
            trainer.advance()
        trainer.timer.flush()
    passes = config.method_options.get("inner_steps", 1)
    images = config.task_batch * task.way * (passes * task.shot + task.query)
    pixels = task.image_shape[1] * task.image_shape[2]
    ms = float(statistics.median(trainer.timer.columns()["step_ms"][2:]))
    short = executor.at_once(config.task_batch) if trainer.history.shrunk_at else None
    return Grown(ms, images * pixels, short)


def sampling_ms(classes: int, device: torch.device) -> float:
    """Median ms to deliver a batch of episodes from so many classes."""
    settings = BASE | {"train_classes": 5, "test_classes": classes, "query": 15}
    config = configure("protonet", **settings, train_way=5, device=str(device))
    source = episodes(RunContext(config), "test")
    numbers = iter(range(0, 10**9, SAMPLED))

    def deliver() -> None:
        first = next(numbers)
        source.batch(range(first, first + SAMPLED))
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return _median_ms(deliver, 60)


def _median_ms(work: Callable[[], None], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[5:])


if __name__ == "__main__":
    main()
