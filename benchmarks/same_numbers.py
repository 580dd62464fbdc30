"""The same configurations before and after a change: which digests and scores differ?

    python benchmarks/same_numbers.py write FILE [--only NAME]
    python benchmarks/same_numbers.py compare BEFORE AFTER

``write`` runs every configuration of ``CONFIGURATIONS`` in a folder of its own and writes the
digests of data and episodes and every episode's accuracy, exactly. ``compare`` exits with 1 if
anything differs. The last bits of a float depend on processor and torch, so both files have to come
from one machine: check out the commit before the change beside the one after it.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

FSB = (sys.executable, "-m", "fewshot_bench")
OMNIGLOT = ("--dataset", "omniglot", "--episodes", "60", "--validation-episodes", "20")
GLYPHS = ("--dataset", "glyphs", "--episodes", "60", "--validation-episodes", "20")

# {name: arguments of fsb run}: each method, each sampler, few labels, each kind of engine.
CONFIGURATIONS: dict[str, tuple[str, ...]] = {
    "nearest-centroid": ("nearest-centroid", *OMNIGLOT, "--way", "20", "--shot", "1"),
    "protonet": ("protonet", *OMNIGLOT, "--shot", "1", "--steps", "20"),
    "protonet-in-order": ("protonet", *OMNIGLOT, "--sampling", "in-order", "--steps", "10"),
    "maml-open": (
        "maml", *OMNIGLOT, "--sampling", "open", "--steps", "8", "--metric", "cross-entropy",
    ),
    "maml-eager": ("maml", *GLYPHS, "--engine", "eager", "--steps", "8", "--shot", "1"),
    "relationnet-open-balanced": (
        "relationnet", *OMNIGLOT, "--sampling", "open-balanced", "--steps", "8", "--within-family",
    ),
    "soft-kmeans-few-labels": (
        "soft-kmeans", *OMNIGLOT, "--unlabeled", "3", "--distractors", "2",
        "--labeled-fraction", "0.5", "--steps", "10", "--query", "5", "--shot", "1",
    ),
    "metagan-maml": ("metagan", *OMNIGLOT, "--steps", "5", "--seed", "3"),
    "metagan-relationnet": (
        "metagan", *GLYPHS, "--base", "relationnet", "--steps", "5", "--labeled-classes", "0.5",
    ),
    "metagan-protonet": ("metagan", *GLYPHS, "--base", "protonet", "--steps", "5"),
    "resnet": ("protonet", *GLYPHS, "--backbone", "resnet12", "--steps", "3", "--episodes", "20"),
    "transductive": ("maml", *GLYPHS, "--backbone-statistics", "batch", "--steps", "5"),
}  # fmt: skip
RESUMED = ("maml", *GLYPHS, "--steps", "60", "--checkpoint-every", "5")  # interrupted on its way
EVALUATED = ("--way", "3", "--shot", "2", "--episodes", "40", "--sampling", "open")  # of protonet


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    write = commands.add_parser("write")
    write.add_argument("file", type=Path)
    write.add_argument("--only", action="append", help="name of a configuration")
    compare = commands.add_parser("compare")
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    given = parser.parse_args()
    if given.command == "compare":
        return differences(*(json.loads(f.read_text("utf-8")) for f in (given.before, given.after)))
    with tempfile.TemporaryDirectory() as folder:
        numbers = all_numbers(Path(folder), given.only)
    given.file.write_text(json.dumps(numbers, indent=1) + "\n", "utf-8")
    return 0


def all_numbers(folder: Path, only: Sequence[str] | None) -> dict[str, Any]:
    """Run everything below ``folder``."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processor": processor(),
        "configurations": {},
    }
    for name, arguments in CONFIGURATIONS.items():
        if not only or name in only:
            print(name, file=sys.stderr, flush=True)
            run = finished(folder / name, ("run", *arguments))
            found["configurations"][name] = numbers_of(run)
            if name == "protonet":
                print("protonet-evaluated", file=sys.stderr, flush=True)
                again = finished(folder / "again", ("eval", str(run), *EVALUATED))
                found["configurations"]["protonet-evaluated"] = numbers_of(again)
    if not only or "maml-resumed" in only:
        print("maml-resumed", file=sys.stderr, flush=True)
        found["configurations"]["maml-resumed"] = numbers_of(resumed(folder / "maml-resumed"))
    return found


def finished(runs: Path, arguments: Sequence[str]) -> Path:
    """Do a run to its end; its folder."""
    command = [*FSB, *arguments, "--runs-dir", str(runs)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (run,) = (path for path in runs.iterdir() if path.is_dir())
    return run


def resumed(runs: Path) -> Path:
    """Interrupt a run after its first checkpoint, and resume it; its folder."""
    process = subprocess.Popen(
        [*FSB, "run", *RESUMED, "--runs-dir", str(runs)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not any(runs.glob("*/checkpoints/*")):
        if process.poll() is not None:
            raise RuntimeError("the run ended before its first checkpoint")
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGTERM)
    process.wait()
    (run,) = (path for path in runs.iterdir() if path.is_dir())
    if json.loads((run / "record.json").read_text("utf-8"))["status"] != "interrupted":
        raise RuntimeError("the run was not interrupted")
    subprocess.run(
        [*FSB, "resume", str(run)],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return run


def numbers_of(run: Path) -> dict[str, Any]:
    """What a finished run of these settings has to give again."""
    record = json.loads((run / "record.json").read_text("utf-8"))
    with (run / "episodes.csv").open(encoding="utf-8", newline="") as file:
        accuracies = [row["accuracy"] for row in csv.DictReader(file)]
    return {
        "dataset_digest": record["dataset_digest"],
        "evaluated_digest": record["evaluated_digest"],
        "episodes_digest": record["episodes_digest"],
        "weights": record["weights"]["sha256"],
        "validation": (record["validation"] or {}).get("accuracy"),
        "accuracy": record["test"]["accuracy"],
        "half_width": record["test"]["half_width"],
        "metrics": {name: value["mean"] for name, value in record["test"]["metrics"].items()},
        "accuracies": accuracies,
    }


def differences(before: dict[str, Any], after: dict[str, Any]) -> int:
    """Print a line for each configuration; 1 if one differs."""
    for name in ("python", "torch", "processor"):
        if before[name] != after[name]:
            print(f"not comparable: {name} {before[name]} before, {after[name]} after")
    one, other = before["configurations"], after["configurations"]
    different = 0
    for name in {**one, **other}:
        old, new = one.get(name), other.get(name)
        if old is None or new is None:
            found = ["only in one of the files"]
        else:
            found = [key for key in old if old[key] != new[key]]
        different += bool(found)
        print(f"{name}: {'differs in ' + ', '.join(found) if found else 'the same'}")
    print(f"{len({**one, **other}) - different} the same, {different} different")
    return 1 if different else 0


def processor() -> str:
    """Its name, as far as the system says."""
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    sys.exit(main())
