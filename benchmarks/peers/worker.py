"""Times one item of one peer, a turn at a time, on request.

    python worker.py PEER ITEM --data FILE.npz [--threads N] [--device D] [--seconds S] [--small]

Run with the Python of the peers' environment. It prepares the item, warms it up, fixes how much
work a turn is, and prints ``{"ready": true, ...}``. Each line ``turn`` on standard input runs one
turn and prints ``{"units": n, "seconds": s, "rate": n / s}``. It ends at the end of its input. What
goes wrong is printed as ``{"error": "one line"}``, and the exit status stays 0: a peer that cannot
run is a result. So that a caller can run several workers in turn, a worker does nothing between
turns. What a peer does not offer has ``"offered": false`` beside it: an answer, and no fault.

``--gradient FILE.npy`` takes no turns: ``--data`` then has weights and episodes of a MAML item (see
``common.Given``), and the peer's gradient of them is written to the file.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import random
import sys
import time
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

ADAPTERS = sorted(
    path.stem.removesuffix("_items") for path in Path(__file__).parent.glob("*_items.py")
)
TURN_SECONDS = 8.0
WARM_UP = 0.25  # of a turn


def main() -> int:
    arguments = _arguments()
    reply = _own_stdout()
    if arguments.gradient is not None:
        try:
            _say(reply, _gradient(arguments))
        except Exception as error:
            _say(reply, _failed(error))
        return 0
    try:
        turn, facts = _prepare(arguments)
    except Exception as error:  # whatever a peer raises is the result
        _say(reply, _failed(error))
        return 0
    _say(reply, {"ready": True, **facts})
    for line in sys.stdin:
        if line.strip() != "turn":
            continue
        try:
            _say(reply, turn())
        except Exception as error:
            _say(reply, _failed(error))
            return 0
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time one item of one peer, on request.")
    parser.add_argument("peer", choices=ADAPTERS)
    parser.add_argument("item")
    parser.add_argument("--data", required=True, help="train and test, uint8 [classes,20,1,28,28]")
    parser.add_argument("--threads", type=int, help="threads of torch (default: torch's own)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=TURN_SECONDS, help="of a turn")
    parser.add_argument("--small", action="store_true", help="turns of a fraction of a second")
    parser.add_argument("--gradient", help="file for the gradient of what --data gives")
    return parser.parse_args()


def _own_stdout() -> TextIO:
    """Keep standard output for the JSON lines; what libraries print goes to standard error."""
    reply = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return reply


def _built(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """Import the peer and build the item: its step, and the ``Bench``."""
    import torch

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    random.seed(0)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")  # old libraries on a new torch; errors still come through
    # As ours. Of itself torch multiplies in TF32 in the convolutions of a GPU.
    for products in (torch.backends.cuda.matmul, torch.backends.cudnn.conv):
        products.fp32_precision = "ieee"

    import shims
    from common import ITEMS, Bench, NotOffered, Step

    if arguments.item not in ITEMS:
        raise NotOffered(f"no item {arguments.item}; the items are {', '.join(ITEMS)}")
    shims.apply()
    adapter = importlib.import_module(f"{arguments.peer}_items")
    bench = Bench(arguments.data, arguments.device, arguments.small)
    step: Step = adapter.prepare(arguments.item, bench)
    return step, bench


def _prepare(arguments: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """Build the item, warm it up: the turn, and facts for the ready line."""
    import torch

    step, bench = _built(arguments)
    steps = _steps_of_a_turn(step, bench, arguments.seconds)

    def turn() -> dict[str, float]:
        units = 0
        bench.synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            units += step()
        bench.synchronize()
        seconds = time.perf_counter() - start
        return {"units": units, "seconds": seconds, "rate": units / seconds}

    facts = {
        "versions": _versions(arguments.peer),
        "threads": torch.get_num_threads(),
        "device": arguments.device,
        "configuration": bench.configuration,
    }
    return turn, facts


def _gradient(arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the gradient of a given item."""
    import numpy as np

    step, bench = _built(arguments)
    step()
    np.save(arguments.gradient, bench.found)
    return {"ready": True, "versions": _versions(arguments.peer)}


def _steps_of_a_turn(step: Any, bench: Any, wanted: float) -> int:
    """Warm up, and count the steps that fill a turn of so many seconds."""
    step()
    if bench.small:
        return 1
    steps, seconds = 0, 0.0
    while seconds < WARM_UP * wanted:
        start = time.perf_counter()
        step()
        bench.synchronize()
        seconds += time.perf_counter() - start
        steps += 1
    return max(1, round(wanted * steps / seconds))


def _versions(peer: str) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in (peer, "torch", "torchvision", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def _failed(error: Exception) -> dict[str, Any]:
    text = " ".join(str(error).split())
    kind = type(error).__name__
    if kind == "NotOffered":
        return {"error": text, "offered": False}
    return {"error": f"{kind}: {text}"}


def _say(reply: TextIO, message: dict[str, Any]) -> None:
    reply.write(json.dumps(message) + "\n")
    reply.flush()


if __name__ == "__main__":
    raise SystemExit(main())
