"""Runs that are broken off and gone on with, and what has to be the same then."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fewshot_bench.results.record import read_record

SMALL: dict[str, Any] = {
    "dataset": "glyphs",
    "train_classes": 12,
    "validation_classes": 8,
    "test_classes": 8,
    "image_size": 12,
    "way": 3,
    "shot": 1,
    "query": 2,
    "train_way": 3,
    "train_query": 2,
    "task_batch": 2,
    "steps": 6,
    "validate_every": 3,
    "validation_episodes": 4,
    "episodes": 40,
    "device": "cpu",
}
CONV: dict[str, Any] = SMALL | {"backbone": "conv4", "backbone_channels": 4, "image_size": 16}

# A method of a stranger: pretrained, with all that a player may have, numbers from torch's own
# generator and a counter that is no tensor.
STRANGER = '''
from functools import partial

import torch
from torch import nn

from fewshot_bench import Losses, Method, Player
from fewshot_bench.method import cross_entropy
from fewshot_bench.nn import per_task
from fewshot_bench.method import cosine


class Stranger(Method):
    """A linear classifier of all training classes; class means of its logits at test."""

    source = "batches"
    wants_backbone = False

    def __init__(self, task):
        super().__init__(task)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(task.image_shape[1] ** 2, task.way))
        self.calls = 0

    def get_extra_state(self):
        return {"calls": self.calls, "by": ("two", 2.5)}

    def set_extra_state(self, state):
        assert state["by"] == ("two", 2.5)
        self.calls = state["calls"]

    def players(self):
        sgd = partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True)
        return {"meta": Player(dict(self.net.named_parameters()), sgd, cosine, 0.5, 0.9)}

    def adapt(self, support):
        way, shot = support.images.shape[1:3]
        images, _ = support.labeled()
        return per_task(self.net, images).unflatten(1, (way, shot)).mean(2)

    def predict(self, state, query):
        return -torch.cdist(per_task(self.net, query), state)

    def losses(self, episode):
        self.calls += 1
        noisy = episode.query + 0.1 * torch.randn_like(episode.query)
        logits = per_task(self.net, noisy) / (1 + self.calls % 3)
        return Losses({"meta": cross_entropy(logits, episode.target)})
'''


def command(method: str, settings: dict[str, Any]) -> list[str]:
    """``fsb run`` of these settings, as a program starts it."""
    words = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        words.append(f"--{'' if value is not False else 'no-'}{flag}")
        if not isinstance(value, bool):
            words.append(str(value))
    return ["run", method, *words]


def lasting(record: dict[str, Any]) -> dict[str, Any]:
    """A record without times, ids and places."""
    record = json.loads(json.dumps(record))
    for name in ("id", "command"):
        del record[name]
    for name in ("runs_dir", "cache_dir", "checkpoint_every", "keep_checkpoints", "sources"):
        del record["config"][name]
    del record["environment"]["commit"]  # the checkout may be edited meanwhile
    if record["training"]:
        record["training"] = {n: v for n, v in record["training"].items() if "seconds" not in n}
    record["timing"] = {"flops_per_step": record["timing"]["flops_per_step"]}
    return record


def assert_same(one: Path, other: Path) -> None:
    """Two runs are the same to the last bit: weights, tables but for times, record."""
    assert lasting(read_record(one)) == lasting(read_record(other))
    assert read_record(other)["status"] == "completed"
    names = {path.name for path in one.iterdir() if not path.name.startswith(".")}
    assert names == {path.name for path in other.iterdir() if not path.name.startswith(".")}
    for name in names & {"weights.safetensors", "confusion.csv", "validation.csv"}:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    for name in names & {"steps.csv", "episodes.csv"}:
        assert untimed(one / name) == untimed(other / name), name


def untimed(path: Path) -> list[list[str]]:
    """The cells of a table but for the columns of times."""
    header, *rows = (line.split(",") for line in path.read_text("utf-8").splitlines())
    kept = [i for i, name in enumerate(header) if not name.endswith("_ms")]
    return [[row[i] for i in kept] for row in [header, *rows]]


class Breaking:
    """A progress that sends this process a signal when the run is at a certain point.

    Arguments:
        phase: ``train`` or ``test``.
        done: units of it.
        number: of the signal.
    """

    def __init__(self, phase: str, done: int, number: int = signal.SIGTERM) -> None:
        self.wanted, self.number = (phase, done), number
        self.name = ""
        self.steps: list[int] = []

    def phase(self, name: str, total: int, done: int = 0) -> None:
        self.name = name

    def update(self, done: int, **numbers: float) -> None:
        if self.name == "train":
            self.steps.append(done)
        if (self.name, done) == self.wanted:
            signal.raise_signal(self.number)


def newest(runs: Path, but: Callable[[Path], bool] = lambda _: False) -> Path:
    """The one run of a folder, of those that are not excluded."""
    (folder,) = (path for path in runs.iterdir() if path.is_dir() and not but(path))
    return folder
