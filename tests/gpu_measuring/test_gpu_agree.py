"""The peers' gradients beside ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.gpu_measuring.gpu_scripts import BENCHMARKS


def test_a_peer_is_given_our_weights_and_episodes(scripts: Any, tmp_path: Path) -> None:
    """A peer in plain torch has our gradient; with other weights it has not."""
    bench = scripts.bench.Bench(
        torch.device("cpu"), True, tmp_path, time.monotonic() + 100, tmp_path / "rows"
    )
    given = tmp_path / "given.npz"
    exact, own = scripts.correctness.write_given("W1_first_order", bench, given)
    assert scripts.correctness.held(own, exact)["agrees"]
    script = textwrap.dedent("""
        import sys
        sys.path.insert(0, sys.argv[1])
        import numpy as np, torch
        from common import *
        bench = Bench(sys.argv[2])
        if sys.argv[4] == "other":
            bench.given.weights[0] += 0.1
        net = StridedNet(5)
        def backward(episode):
            weights = dict(net.named_parameters())
            fast = {n: w.detach().requires_grad_() for n, w in weights.items()}
            for _ in range(INNER_STEPS):
                logits = torch.func.functional_call(net, fast, episode.support)
                found = torch.autograd.grad(loss(logits, episode.support_labels), fast.values())
                fast = {n: (w - INNER_RATE * g).detach().requires_grad_()
                        for (n, w), g in zip(fast.items(), found)}
            logits = torch.func.functional_call(net, fast, episode.query)
            found = torch.autograd.grad(loss(logits, episode.query_labels), fast.values())
            for w, g in zip(weights.values(), found):
                w.grad = g if w.grad is None else w.grad + g
        meta_training(bench, MAML_ITEMS["W1_first_order"], net, backward)()
        np.save(sys.argv[3], bench.found)
    """)
    for weights, agrees in (("given", True), ("other", False)):
        words = [str(BENCHMARKS / "peers"), str(given), str(tmp_path / "found.npy"), weights]
        subprocess.run([sys.executable, "-c", script, *words], check=True)
        found = np.load(tmp_path / "found.npy")
        assert scripts.correctness.held(found, exact)["agrees"] == agrees


def test_a_peer_multiplies_in_full_precision(tmp_path: Path) -> None:
    """Torch's convolutions on a GPU are TF32 by default, which is no rate or gradient in fp32."""
    (tmp_path / "higher.py").write_text(
        "import torch\n"
        "switches = torch.backends.cuda.matmul, torch.backends.cudnn.conv\n"
        "raise ImportError(' '.join(switch.fp32_precision for switch in switches))\n"
    )
    np.savez(tmp_path / "data.npz", train=np.zeros(1, np.uint8), test=np.zeros(1, np.uint8))
    words = [str(BENCHMARKS / "peers/worker.py"), "higher", "W4_maml"]
    ended = subprocess.run(
        [sys.executable, *words, "--data", str(tmp_path / "data.npz")],
        env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(ended.stdout)["error"] == "ImportError: ieee ieee"
