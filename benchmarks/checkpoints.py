"""What checkpoints cost, as a share of the time of the steps between two of them.

    uv run python benchmarks/checkpoints.py

Writes ``results/<date>-<device>-checkpoints.md``. In turns, of each method: some training steps,
one checkpoint as a run writes it (with the numbers of 100,000 steps in it, fsync included), and
many looks at whether one is due. The share is of the default interval.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from limit import measure
from table import describe_machine, number

from fewshot_bench.config.resolve import configure
from fewshot_bench.config.schema import SETTINGS, Every
from fewshot_bench.engine.checkpointing import Checkpointer, Store
from fewshot_bench.engine.executors import choose
from fewshot_bench.engine.training import Plan, Trainer
from fewshot_bench.runs.context import RunContext
from fewshot_bench.runs.prepare import episodes, method_task, new_method

BASE: dict[str, Any] = {
    "dataset": "glyphs",
    "train_classes": 100,
    "validation_classes": 0,
    "test_classes": 64,
    "task_batch": 1,
}
ITEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "protonet, conv4": ("protonet", {"train_way": 5, "train_query": 15}),
    "maml, conv4": ("maml", {}),
    "metagan over maml, conv4": ("metagan", {}),
    "protonet, resnet12": ("protonet", {"train_way": 5, "train_query": 5, "backbone": "resnet12"}),
}
BAR = 0.02
LOOKS = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description="What checkpoints cost.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="of a turn")
    parser.add_argument("--small", action="store_true", help="a check that it works, no figures")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    arguments.out.mkdir(parents=True, exist_ok=True)
    interval = Every.parse(SETTINGS["checkpoint_every"].default).seconds
    machine = describe_machine(device, measure(device))
    path = arguments.out / f"{machine['date']}-{machine['short']}-checkpoints.md"
    rows: list[Any] = []
    text = ""
    for name, (method, settings) in ITEMS.items():
        if arguments.small and "resnet" in name:
            continue
        rows.append((name, *timed(method, settings, device, arguments)))
        text = table(rows, interval, machine, arguments.turns)
        path.write_text(text, "utf-8")  # after every item: a run that is cut off leaves these
    print(text, end="")


def timed(
    method: str, settings: dict[str, Any], device: torch.device, arguments: Any
) -> tuple[list[float], list[float], list[float], int]:
    """Seconds of a step, of a checkpoint and of a look, a number of each turn; and its bytes.

    Checkpoints go to the disk of the results: where temporary files are, fsync may cost nothing.
    """
    history, steps = (100, 2) if arguments.small else (100_000, arguments.steps)
    steps_s, saves_s, looks_s, size = [], [], [], 0
    with tempfile.TemporaryDirectory(dir=arguments.out, prefix=".") as folder:
        store = Store(Path(folder))
        trainer = trainer_of(method, settings, device, store)
        with trainer.executor.running():
            for _ in range(3):
                trainer.advance()
            trainer.flush()
            row = trainer.history.steps.last()
            for step in range(history):
                trainer.history.steps.append(row | {"step": step})
                trainer.timer.add(1.0, (0.2, 0.7, 0.1))
            for _ in range(arguments.turns):
                begin = time.perf_counter()
                for _ in range(steps):
                    trainer.advance()
                trainer.flush()
                steps_s.append((time.perf_counter() - begin) / steps)
                begin = time.perf_counter()
                trainer.checkpointer.save(trainer.step, trainer.state)
                saves_s.append(time.perf_counter() - begin)
                begin = time.perf_counter()
                for _ in range(LOOKS):
                    trainer.checkpointer.signals.check()
                    trainer.checkpointer.after_step(trainer.step, False, trainer.state)
                looks_s.append((time.perf_counter() - begin) / LOOKS)
        size = store.paths()[0].stat().st_size
    return steps_s, saves_s, looks_s, size


def trainer_of(
    method: str, settings: dict[str, Any], device: torch.device, store: Store
) -> Trainer:
    """A training that is far from its end and whose next checkpoint is not due."""
    config = configure(method, **BASE, **settings, device=str(device))
    context = RunContext(config)
    source = episodes(context, "train")
    built = new_method(context, method_task(context)).train()
    checkpointer = Checkpointer(store, Every.parse(config.checkpoint_every))
    executor, plan = choose("auto", built, device), Plan(10**9, config.task_batch)
    return Trainer(built, executor, source, plan, checkpointer=checkpointer)


def table(rows: list[Any], interval: float, machine: dict[str, Any], turns: int) -> str:
    """Markdown: a row for each method."""
    lines = [
        f"# Checkpoints, {machine['date']}, {machine['device']}",
        "",
        f"`uv run python benchmarks/checkpoints.py`, torch {machine['torch']}. Every {interval:g} "
        "s, the default. A checkpoint with the numbers of 100,000 steps in it; "
        f"medians of {turns} turns of steps, checkpoint and looks at the clock. The bar is "
        f"{BAR:.0%} of step time; the last column is the interval at which it would be reached.",
        "",
        "| training | a step, ms | a checkpoint, ms (most) | MB | a look, us | share of step time "
        "| 2 % at every |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, steps, saves, looks, size in rows:
        shares = [s / interval + k / t for t, s, k in zip(steps, saves, looks, strict=True)]
        share = statistics.median(shares)
        least = statistics.median(
            s / (BAR - k / t) for t, s, k in zip(steps, saves, looks, strict=True)
        )
        lines.append(
            f"| {name} | {number(1e3 * statistics.median(steps))} | "
            f"{number(1e3 * statistics.median(saves))} ({number(1e3 * max(saves))}) | "
            f"{number(size / 1e6)} | {number(1e6 * statistics.median(looks))} | {share:.4%} | "
            f"{number(least)} s |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
