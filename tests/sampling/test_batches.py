"""Mini-batches over all classes, and a method that is pretrained on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fewshot_bench
from fewshot_bench.data.images import LabeledImages
from fewshot_bench.data.table import ClassTable
from fewshot_bench.sampling.batches import BatchSource

COUNTS = (3, 1, 6)

PLUGIN = """
from fewshot_bench import hookimpl

@hookimpl
def register_methods():
    return {"pretrained": "pretrained_method:Pretrained"}
"""
METHOD = '''
import torch
from torch import nn

from fewshot_bench import Losses, Method
from fewshot_bench.method import cross_entropy
from fewshot_bench.nn import per_task


class Pretrained(Method):
    """A linear classifier of all training classes; class means of its logits at test."""

    source = "batches"
    wants_backbone = False

    def __init__(self, task):
        super().__init__(task)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(task.image_shape[1] ** 2, task.way))

    def adapt(self, support):
        way, shot = support.images.shape[1:3]
        images, _ = support.labeled()
        return per_task(self.net, images).unflatten(1, (way, shot)).mean(2)

    def predict(self, state, query):
        return -torch.cdist(per_task(self.net, query), state)

    def losses(self, episode):
        assert episode.support.images.shape[2] == 0
        return Losses({"meta": cross_entropy(per_task(self.net, episode.query), episode.target)})
'''


def source(seed: int = 0) -> BatchSource:
    images = np.arange(10, dtype=np.uint8).reshape(-1, 1, 1, 1)
    return BatchSource(ClassTable(LabeledImages(images, np.array(COUNTS), tuple("abc"))), 8, seed)


def test_a_batch_is_a_function_of_its_number_and_the_labels_are_right() -> None:
    whole = source().batch(range(50))
    parts = torch.cat([source().batch(range(i, i + 10)).query for i in range(0, 50, 10)])
    assert torch.equal(whole.query, parts)
    assert not torch.equal(whole.query, source(1).batch(range(50)).query)
    image = (whole.query.flatten() * 255).round().long()
    want = torch.arange(3).repeat_interleave(torch.tensor(COUNTS))[image]
    assert torch.equal(whole.target.flatten(), want)
    assert set(image.tolist()) == set(range(10))
    assert whole.support.images.shape[2] == 0


@pytest.mark.parametrize("engine", ["threads", "eager"])
def test_a_pretrained_method_runs_like_any_other(engine, fake_distribution, tmp_path) -> None:
    site = fake_distribution("pretrained-plugin", "pretrained_hooks", PLUGIN)
    (site / "pretrained_method.py").write_text(METHOD, "utf-8")
    record = fewshot_bench.run(
        "pretrained", dataset="glyphs", train_classes=10, validation_classes=6, test_classes=6,
        way=3, shot=1, query=3, steps=30, episodes=20, validation_episodes=5, engine=engine,
        runs_dir=str(tmp_path / "runs"), cache_dir=str(tmp_path / "cache"),
    )  # fmt: skip
    assert record["status"] == "completed"
    assert record["parameters"] == (28 * 28 + 1) * 40  # ten characters, four ways up
    steps = (tmp_path / "runs" / record["id"] / "steps.csv").read_text("utf-8").splitlines()
    losses = [float(line.split(",")[1]) for line in steps[1:]]
    assert losses[-1] < losses[0]
