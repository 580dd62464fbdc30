"""float32 gradients of a training step against float64: ours, and torch's batch normalization.

``uv run python benchmarks/precision.py`` prints a table for the networks as they are built in, for
torch's own kernel in channels-last layout (what they had before 2026-11-26) and for a contiguous
layout throughout. Real Omniglot from ``$FSB_DATA``; a few minutes on two cores.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import fsb_backbones.conv as conv
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot_bench.config.resolve import configure
from fewshot_bench.nn import Conv2d, TaskBatchNorm
from fewshot_bench.runs.context import RunContext
from fewshot_bench.runs.prepare import prepare
from fewshot_bench.runs.train import make_trainer
from fewshot_bench.testing import precision_error

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "MAML, first order, 5-way 5-shot": ("maml", {"first_order": True}),
    "the same on glyphs": ("maml", {"first_order": True, "dataset": "glyphs"}),
    "the same, 1-shot": ("maml", {"first_order": True, "shot": 1}),
    "MAML, second order, 5-way 5-shot": ("maml", {"first_order": False}),
    "ProtoNet, 20-way 5-shot": ("protonet", {}),
    "ProtoNet, 60-way 5-shot": ("protonet", {"train_way": 60}),
    "ProtoNet on conv4-strided, 20-way 5-shot": ("protonet", {"backbone": "conv4-strided"}),
    "soft k-means, 5 unlabeled": ("soft-kmeans", {"unlabeled": 5, "query": 5}),
    "Relation Network, 5-way 5-shot": ("relationnet", {}),
    "MetaGAN over MAML, 5-way 5-shot": ("metagan", {}),
    "MetaGAN over ProtoNet": ("metagan", {"base": "protonet", "backbone": "conv4"}),
    "MetaGAN over Relation Network": (
        "metagan",
        {"base": "relationnet", "backbone": "conv4-relation"},
    ),
}


def torchs(self: TaskBatchNorm, x: Tensor) -> Tensor:
    """torch's kernel, in whatever layout the images have."""
    return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)


def laid_out(layout: Callable[[Tensor], Tensor]) -> Callable[[conv.Conv4, Tensor], Tensor]:
    """A network that takes its images in one layout."""
    return lambda self, x: self.blocks(layout(x))


@contextmanager
def by_torch(layout: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """torch's batch normalization and convolution, all images in one layout."""
    with (
        mock.patch.object(TaskBatchNorm, "forward", torchs),
        mock.patch.object(Conv2d, "forward", nn.Conv2d.forward),
        mock.patch.object(conv.Conv4, "forward", laid_out(layout)),
    ):
        yield


WAYS: dict[str, Callable[[], Any]] = {
    "as built": nullcontext,
    "torch, channels-last": lambda: by_torch(conv.channels_last),
    "torch, contiguous": lambda: by_torch(Tensor.contiguous),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batches", type=int, default=5, help="of two tasks, for each figure")
    parser.add_argument("--steps", type=int, default=0, help="of training before it is measured")
    asked = parser.parse_args()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    print(f"torch {torch.__version__}; after {asked.steps} steps; the median over {asked.batches} ")
    print("batches of 2 tasks of the relative error of each player's gradient; in brackets the ")
    print("largest\n")
    print("| step | " + " | ".join(WAYS) + " |\n|---|" + "---|" * len(WAYS))
    for title, (method, settings) in KINDS.items():
        settings = {"dataset": "omniglot", "way": 5, "shot": 5, "episodes": 2} | settings
        steps = {"task_batch": 2, "steps": asked.steps or 1, "validate_every": 0}
        parts = prepare(RunContext(configure(method, device="cpu", **steps, **settings)))
        if asked.steps:
            with parts.executor.running():
                make_trainer(parts).run()
        cells = []
        for way in WAYS.values():
            with way():
                each = [
                    precision_error(parts.method, parts.train.batch(range(2 * b, 2 * b + 2)))
                    for b in range(asked.batches)
                ]
            found = {name: [one[name] for one in each] for name in each[0]}
            cells.append(
                ", ".join(f"{statistics.median(v):.1e} ({max(v):.1e})" for v in found.values())
            )
        print(f"| {title} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
