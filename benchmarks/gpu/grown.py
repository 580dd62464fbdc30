"""How a step grows with tasks, way, shot, inner steps and image size; what stops it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import growth as cpu
from bench import Bench

from fewshot_bench.errors import OutOfMemory, is_out_of_memory

# block: the setting that grows, its values, all other settings
BLOCKS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "tasks a step (maml)": ("task_batch", (1, 4, 16, 32, 64, 128, 256, 512), cpu.MAML),
    "tasks a step (protonet)": ("task_batch", (1, 4, 16, 64, 256, 512), cpu.PROTONET),
    "image size (protonet)": ("image_size", (28, 84, 224), cpu.PROTONET | {"task_batch": 2}),
    "way (protonet)": ("train_way", (5, 20, 60), cpu.PROTONET | {"task_batch": 1}),
    "shot (maml)": ("shot", (1, 5), cpu.MAML),
    "inner steps (maml)": ("inner_steps", (1, 5, 10), cpu.MAML),
}
FULL = 0.85  # of the growth of the work is that of the time, from where the device is full on


def growth(bench: Bench) -> None:
    """A row for each size, and one for each block: where the device is full, what stopped it."""
    for block, (name, values, settings) in BLOCKS.items():
        seen: list[dict[str, Any]] = []
        for value in values[: 1 if bench.small else None]:
            if bench.over(3, f"{block} {value}"):
                tell(bench, block, seen)
                return
            with bench.told(block=block, value=value) as row:
                bench.fresh()
                steps = 2 if bench.small else 7
                try:
                    grown = cpu.grown(settings | {name: value}, bench.device, steps)
                    row |= {"step_ms": grown.ms, "work": grown.images, "short": grown.short}
                except Exception as error:
                    if not (isinstance(error, OutOfMemory) or is_out_of_memory(error)):
                        raise
                    # Which is what was asked.
                    said = " ".join(str(error).split())[:500]
                    row["stopped"] = f"{type(error).__name__}: {said}"
                finally:
                    row["peak_memory"] = bench.peak()
            seen.append(row)
            if stopped_by(row) is not None:
                break  # what is larger does not fit either
        tell(bench, block, seen)


def tell(bench: Bench, block: str, seen: list[dict[str, Any]]) -> None:
    """The row of a block."""
    if seen:
        bench.row(block=block, full_from=full_from(seen), stopped_by=stopped_by(seen[-1]))


def stopped_by(row: dict[str, Any]) -> str | None:
    """Why a size did not run in one piece; None where it did."""
    if said := row.get("error") or row.get("stopped"):
        return str(said)
    return f"memory: {row['short']} tasks at a time" if row["short"] else None


def full_from(rows: list[dict[str, Any]]) -> int | None:
    """The smallest size from which on time grows as the work does; None: it never does.

    Arguments:
        rows: of a block, the smallest size first; those with an error count for nothing.
    """
    timed = [row for row in rows if "step_ms" in row]
    full = None
    for small, large in reversed(list(pairwise(timed))):
        grows = (large["step_ms"] / small["step_ms"] - 1) / (large["work"] / small["work"] - 1)
        if grows < FULL:
            break
        full = int(small["value"])
    return full
