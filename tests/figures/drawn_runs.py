"""Made-up runs that have everything a picture can show; every number can be followed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from fewshot_bench.figures import Request, draw
from fewshot_bench.results.record import write_table
from fewshot_bench.results.runs import Run, load_runs
from fewshot_bench.utils.inputs import WEIGHTS
from tests.results.made_up_runs import write_run

# Two classes of three in each of four episodes, five queries of each.
CLASSES = np.array([[0, 1], [1, 2], [2, 0], [0, 1]])
RIGHT = np.array([[5, 4], [3, 5], [2, 4], [5, 5]])  # of five, by slot
QUERY = 5
STEPS = 100
PHASES = ("sample_ms", "forward_backward_ms", "optimizer_ms")


def task(way: int = 2, shot: int = 1, query: int = QUERY) -> dict[str, int]:
    return {"way": way, "shot": shot, "query": query, "unlabeled": 0, "distractors": 0}


def evaluated(
    runs: Path, method: str = "alpha", right: Any = RIGHT, shot: int = 1, **changes: Any
) -> Path:
    """A run that trained nothing: its record, episodes.csv and confusion.csv."""
    right = np.asarray(right)
    scores = right.sum(1) / (2 * QUERY)
    weights = {"file": WEIGHTS, "sha256": hashlib.sha256(b"").hexdigest()}
    own = {"task": task(shot=shot), "weights": weights}
    folder = write_run(runs, method, scores, **(own | changes))
    number = np.arange(len(right))
    columns = {"episode": number, "accuracy": scores}
    slots = {f"class_{slot}": CLASSES[: len(right), slot] for slot in range(2)}
    write_table(folder / "episodes.csv", columns | slots)
    cells = [
        (e, slot, answer, count)
        for e, row in enumerate(right)
        for slot, n in enumerate(row)
        for answer, count in ((slot, n), (1 - slot, QUERY - n))
        if count
    ]
    names = ("episode", "target", "predicted", "count")
    (folder / WEIGHTS).touch()
    write_table(folder / "confusion.csv", dict(zip(names, zip(*cells, strict=True), strict=True)))
    return folder


def trained(
    runs: Path,
    method: str = "alpha",
    accuracies: tuple[float, ...] = (0.5, 0.75),
    players: tuple[str, ...] = ("meta",),
    step_ms: float = 20.0,
    **changes: Any,
) -> Path:
    """A run that trained for 100 steps, with a validation at each half of them."""
    training = {"steps": STEPS, "seconds": 3.0, "warmup_seconds": 0.1, "engine": "eager"}
    folder = evaluated(runs, method, **({"training": training} | changes))
    step = np.arange(1, STEPS + 1)
    losses = {f"loss_{player}": 1.0 / step for player in players}
    times = dict(
        zip(PHASES, step_ms * np.array([[0.1], [0.7], [0.2]]) * np.ones(STEPS), strict=True)
    )
    total = {"step_ms": np.full(STEPS, step_ms)}
    write_table(folder / "steps.csv", {"step": step, **losses, **total, **times})
    at = np.linspace(0, STEPS, len(accuracies) + 1).astype(int)[1:]
    write_table(folder / "validation.csv", {"step": at, "accuracy": accuracies})
    return folder


def keep_pictures(folder: Path, steps: tuple[int, ...] = (0, 50, 100)) -> None:
    """Pictures of one class of one 2 x 2 image: support 10, drawn by step; judged in two tasks."""
    (folder / "pictures").mkdir()
    shape = (2, 1, 1, 2, 2)
    np.savez(folder / "pictures" / "task.npz", support=np.full(shape, 10, np.uint8))
    for step in steps:
        drawn = np.full(shape, step, np.uint8)
        np.savez(folder / "pictures" / f"step-{step:08d}.npz", fakes=drawn)
    real = {"real_precision": [1.0, 0.8], "real_recall": [0.9, 0.9]}
    lines = [
        {"step": step, "name": "fakes", "precision": [step / 100, 0.0], "recall": [0.0, 0.0]}
        | {"distance": [3.0, 1 + step / 50]}
        | real
        for step in steps
    ]
    file = folder / "pictures" / "quality.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def loaded(runs: Path) -> list[Run]:
    found, problems = load_runs([runs])
    assert not problems
    return found


def drawn(kind: str, runs: Path, **ask: Any) -> Any:
    """(figure, what was left out)."""
    asked = Request(**ask)
    return draw(kind, loaded(runs), asked), asked.left_out


def told(figure: Any) -> str:
    """The caption, on one line."""
    return " ".join(figure.texts[-1].get_text().split())


def legend_of(figure: Any) -> list[str]:
    return [text.get_text().replace("\n", " ") for text in figure.legends[0].get_texts()]
