"""What TF32 products would change, tried on a CPU: their operands rounded as a GPU rounds them.

``uv run python benchmarks/tf32.py`` trains MAML and ProtoNet on real Omniglot from ``$FSB_DATA``,
from the same seeds with and without rounding, and compares accuracies on the same test episodes;
about half an hour on a core. TF32 has float32's exponent and 10 bits of mantissa, and sums of
products are float32; their order is another one on a GPU, where ``gpu/measure.py`` compares the two
(part ``precision``).
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fewshot_bench.config.resolve import configure
from fewshot_bench.engine.evaluation import evaluate
from fewshot_bench.results.stats import paired_difference
from fewshot_bench.runs.context import RunContext
from fewshot_bench.runs.prepare import PreparedRun, prepare
from fewshot_bench.runs.train import make_trainer

aten = torch.ops.aten
# The operands of each product.
PRODUCTS = {
    aten.mm.default: (0, 1),
    aten.bmm.default: (0, 1),
    aten.addmm.default: (1, 2),
    aten.baddbmm.default: (1, 2),
    aten.convolution.default: (0, 1),
    aten.convolution_backward.default: (0, 1, 2),
}
DROPPED = 13  # of the 23 bits of a float32's mantissa
METHODS = {
    "maml": {"train_shot": 1, "first_order": True},
    "protonet": {"train_way": 5},
}


def rounded(x: Tensor) -> Tensor:
    """A float32 tensor to the nearest numbers of TF32, ties to even."""
    bits = x.view(torch.int32)
    odd = (bits >> DROPPED) & 1
    return ((bits + (2 ** (DROPPED - 1) - 1) + odd) & -(2**DROPPED)).view(torch.float32)


class TF32(TorchDispatchMode):
    """Rounds the operands of every product."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        values = list(args)
        for i in PRODUCTS.get(func, ()):
            if isinstance(values[i], Tensor) and values[i].dtype == torch.float32:
                values[i] = rounded(values[i])
        return func(*values, **(kwargs or {}))


@contextmanager
def products(name: str) -> Iterator[None]:
    """fp32 or TF32 products."""
    if name == "fp32":
        yield
        return
    with TF32():
        yield


def prepared(method: str, seed: int, steps: int, episodes: int) -> PreparedRun:
    config = configure(
        method, dataset="omniglot", way=5, shot=1, steps=steps, validate_every=0, seed=seed,
        device="cpu", engine="eager", episodes=episodes, **METHODS[method],
    )  # fmt: skip
    return prepare(RunContext(config))


def accuracies(parts: PreparedRun, episodes: int, name: str) -> np.ndarray:
    with parts.executor.running(), products(name):
        return evaluate(parts.executor, parts.test, episodes, chunk=32).accuracy


def paired(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Mean difference in points, and its 95 % half width."""
    found = paired_difference(a, b, ranks=False)
    return {"points": 100 * found.difference, "half_width": 100 * (found.half_width or 0.0)}


def row(method: str, seed: int, steps: int, episodes: int) -> dict[str, Any]:
    """A training with each kind of products, and the weights of the first evaluated with both."""
    parts = prepared(method, seed, steps, episodes)
    start = copy.deepcopy(parts.method.state_dict())
    scores = {}
    for name in ("tf32", "fp32"):
        parts.method.load_state_dict(start)
        with parts.executor.running(), products(name):
            make_trainer(parts).run()
        scores[name] = accuracies(parts, episodes, name)
    return {
        "method": method,
        "seed": seed,
        "steps": steps,
        "fp32": 100 * float(scores["fp32"].mean()),
        "tf32": 100 * float(scores["tf32"].mean()),
        "trained": paired(scores["tf32"], scores["fp32"]),
        "evaluated": paired(accuracies(parts, episodes, "tf32"), scores["fp32"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--json", type=Path, help="write the rows there, too")
    asked = parser.parse_args()
    rows = []
    for method in asked.methods:
        for seed in asked.seeds:
            rows.append(row(method, seed, asked.steps, asked.episodes))
            print(json.dumps(rows[-1]), flush=True)
    if asked.json is not None:
        asked.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
