"""The parts of ``measure.py``: each a function that writes rows as it goes.

    python benchmarks/gpu/parts.py PART --out FILE [--device cuda] [--seconds 60] [--small]

A row is one JSON object on a line. A part looks at its clock and leaves what does not fit.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import work
from limit import measure as limits_of
from limit import product
from table import describe_machine
from torch.profiler import ProfilerActivity
from turns import Worker, peers_python

from fewshot_bench.config import configure
from fewshot_bench.engine.choice import choose
from fewshot_bench.engine.evaluation import evaluate
from fewshot_bench.engine.observer import Silent
from fewshot_bench.engine.precision import Precision
from fewshot_bench.parts import Parts, prepare
from fewshot_bench.results.statistics import paired_difference
from fewshot_bench.runner import make_trainer

HERE = Path(__file__).resolve().parent
PARTS: dict[str, Callable[[Bench], None]] = {}


class Bench:
    """What a part is given: where, how long, and where its rows go."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.device = torch.device(asked.device)
        self.small: bool = asked.small
        self.keep: Path = asked.keep
        self.end = time.monotonic() + asked.seconds
        self._out = asked.out.open("a", encoding="utf-8")

    def left(self) -> float:
        """Seconds that are left."""
        return self.end - time.monotonic()

    def over(self, seconds: float, what: str) -> bool:
        """Whether fewer seconds are left than this needs; then a row says that it was left out."""
        if self.small or self.left() >= seconds:
            return False
        self.row(left=what)
        return True

    def row(self, **values: Any) -> None:
        """Write a row, now."""
        self._out.write(json.dumps(values) + "\n")
        self._out.flush()

    @contextmanager
    def told(self, **what: Any) -> Iterator[dict[str, Any]]:
        """A row with these values, and those that are put into the dictionary; errors are rows."""
        row = dict(what)
        began = time.monotonic()
        try:
            yield row
        except Exception as error:
            traceback.print_exc()
            row["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        row["took_s"] = round(time.monotonic() - began, 2)
        self.row(**row)

    def wait(self) -> None:
        """Until the device has done everything."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def part(function: Callable[[Bench], None]) -> Callable[[Bench], None]:
    PARTS[function.__name__] = function
    return function


@part
def machine(bench: Bench) -> None:
    """What everything was taken on: versions, driver, clocks, and the best rates there are."""
    about = describe_machine(bench.device, limits_of(bench.device, repeats=2 if bench.small else 9))
    if bench.device.type == "cuda":
        about["nvidia_smi"] = smi()
        about["products"] = {"fp32": about["limits"]["flops"]}
        about["products"]["bf16"] = product(bench.device, torch.bfloat16)
        with Precision("tf32").applied():
            about["products"]["tf32"] = product(bench.device, torch.float32)
    bench.row(**about)


def smi() -> str | None:
    """Driver, clocks and memory, as the driver tells them."""
    query = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,memory.total,power.limit"
    words = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


# ---- speed ----------------------------------------------------------------------------------

# (engine, how per-task weights are run, precision)
Way = tuple[str, str | None, str]
GPU_WAYS: tuple[Way, ...] = (
    ("graph", None, "fp32"),
    ("graph", None, "tf32"),
    ("graph", "batched", "tf32"),
    ("eager", None, "fp32"),
)
CPU_WAYS: tuple[Way, ...] = (("eager", None, "fp32"), ("im2col", None, "fp32"))


LEAST = 5  # steps, the first three of which warm up


def time_training(bench: Bench, items: tuple[str, ...], ways: tuple[Way, ...]) -> None:
    """A row for each item and way: ms of a step, of its phases, and the rate."""
    ways = ways if bench.device.type == "cuda" else CPU_WAYS
    pieces = [(item, way) for way in ways for item in items]
    for i, (item, way) in enumerate(pieces):
        share = bench.left() / (len(pieces) - i)
        if share < 0.3 and bench.over(math.inf, f"{item} {way}"):
            break
        engine, strategy, precision = way
        with bench.told(item=item, engine=engine, strategy=strategy, precision=precision) as row:
            seconds = 0.3 if bench.small else min(share, 12.0)
            row |= time_steps(bench, item, engine, strategy, precision, seconds)


def time_steps(
    bench: Bench, item: str, engine: str, strategy: Any, precision: str, seconds: float
) -> dict[str, Any]:
    """Steps of a training item for so many seconds, the first ones apart."""
    end = time.monotonic() + seconds
    said: list[str] = []
    prepared = work.prepare(
        item, bench.device, small=bench.small, engine=engine, precision=precision, strategy=strategy
    )
    trainer = prepared.trainer
    assert trainer is not None
    trainer.tell = said.append
    with prepared.lowering.running():
        while trainer.step < LEAST or time.monotonic() < end:
            prepared.step()
        trainer.flush()
    tasks = trainer.plan.task_batch
    summary: dict[str, Any] = trainer.timer.summary(tasks)
    ms = summary["step_ms"]["median"]
    each = 1 if work.unit(item) == "steps/s" else tasks
    memory = torch.cuda.max_memory_allocated() if bench.device.type == "cuda" else None
    return {
        "ran_as": prepared.lowering.name,
        "step_ms": ms,
        "p95_ms": summary["step_ms"]["p95"],
        "phases": summary["phases"],
        "rate": each / ms * 1e3,
        "unit": work.unit(item),
        "steps": trainer.step,
        "flops_per_step": prepared.flops_per_unit * each,
        "peak_memory": memory,
        "said": said,
    }


@part
def maml(bench: Bench) -> None:
    """W1: a step of 32 tasks."""
    time_training(bench, ("W1_second_order", "W1_first_order", "W1_one_shot_one_step"), GPU_WAYS)


@part
def protonet(bench: Bench) -> None:
    """W2: a step of one task."""
    ways = (*(w for w in GPU_WAYS if w[1] is None), ("graph", None, "bf16"))
    time_training(bench, ("W2_5way", "W2_60way"), ways)


@part
def metagan(bench: Bench) -> None:
    """W5: a step of the tutorial's preset, 32 tasks."""
    time_training(bench, ("W5",), GPU_WAYS)


@part
def evaluation(bench: Bench) -> None:
    """W3 and W4: delivery of episodes; 600 test episodes, and many of ProtoNet's."""
    count, chunks = (8, (4,)) if bench.small else (600, (32, 200))
    with bench.told(item="W3") as row:
        prepared = work.prepare("W3", bench.device, small=bench.small)
        prepared.step()
        bench.wait()
        rates = []
        for _ in range(3):
            start = time.perf_counter()
            units = prepared.step()
            bench.wait()
            rates.append(units / (time.perf_counter() - start))
        row |= {"rate": statistics.median(rates), "unit": "episodes/s"}
    for item in ("W4_maml", "W4_protonet_batch_statistics", "W4_protonet_running_statistics"):
        for chunk in chunks:
            for precision in ("fp32",) if bench.small else ("fp32", "tf32"):
                if bench.over(3, f"{item} {chunk} {precision}"):
                    return
                with bench.told(item=item, chunk=chunk, precision=precision) as row:
                    parts = evaluated(item, bench, precision)
                    times = []
                    for _ in range(2 if bench.small else 4):
                        bench.wait()
                        start = time.perf_counter()
                        with parts.lowering.running():
                            scores = evaluate(parts.lowering, parts.test, count, chunk=chunk)
                        times.append(time.perf_counter() - start)
                    row |= {
                        "seconds": statistics.median(times[1:]),
                        "first_s": times[0],
                        "episodes": count,
                        "accuracy": float(scores.accuracy.mean()),
                    }


def evaluated(item: str, bench: Bench, precision: str) -> Parts:
    """Everything of an evaluation item, as ``fsb run`` makes it."""
    settings = work.settings_of(item) | {"device": str(bench.device), "precision": precision}
    return prepare(configure(settings.pop("method"), **settings), Silent())


@part
def profile(bench: Bench) -> None:
    """Where the device's time of a step goes, kernel by kernel."""
    cuda = bench.device.type == "cuda"
    items = ("W1_second_order", "W2_5way", "W5")
    for item in items[:1] if bench.small else items:
        if bench.over(5, item):
            return
        with bench.told(item=item) as row:
            prepared = work.prepare(
                item, bench.device, small=bench.small, precision="tf32" if cuda else "fp32"
            )
            with prepared.lowering.running():
                for _ in range(5):
                    prepared.step()
                bench.wait()
                activity = ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU
                with torch.profiler.profile(activities=[activity]) as seen:
                    for _ in range(PROFILED):
                        prepared.step()
                    bench.wait()
            row["kernels"] = kernels(seen.key_averages(), cuda)


PROFILED = 3  # steps


def kernels(averages: Any, cuda: bool) -> list[dict[str, Any]]:
    """The 25 that take most time: ms and calls of a step."""
    clock = "self_device_time_total" if cuda else "self_cpu_time_total"  # microseconds
    timed = sorted(((getattr(op, clock), op) for op in averages), key=lambda x: -x[0])
    rows = [
        {"kernel": op.key[:110], "ms": round(us / PROFILED / 1e3, 4), "calls": op.count / PROFILED}
        for us, op in timed[:25]
    ]
    total = sum(us for us, _ in timed) / PROFILED / 1e3
    calls = sum(op.count for _, op in timed) / PROFILED
    return [{"kernel": "all", "ms": total, "calls": calls}, *rows]


@part
def peers(bench: Bench) -> None:
    """The others' steps of the same items on the same card; ours are the parts above.

    All are made ready at the same time, and then take turns one by one.
    """
    items = ("W1_second_order", "W1_first_order", "W1_one_shot_one_step", "W4_maml", "W2_5way")
    pairs = [(item, peer) for item in items for peer in ("learn2learn", "torchopt", "higher")]
    pairs = pairs[:1] if bench.small else pairs
    python = peers_python() or sys.executable
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(len(pairs)) as pool:
        data = Path(folder) / "images.npz"
        work.write_arrays(data)

        def ready(pair: tuple[str, str]) -> Worker:
            return Worker(python, pair[1], pair[0], data, bench.device, bench.small, TURN)

        workers = dict(zip(pairs, pool.map(ready, pairs), strict=True))
        rates: dict[tuple[str, str], list[float]] = {pair: [] for pair in pairs}
        for _ in range(TURNS):
            for pair, worker in workers.items():
                if worker.error is None and (bench.left() > 4 or bench.small):
                    try:
                        rates[pair].append(worker.turn())
                    except RuntimeError as error:
                        worker.error = str(error)
        for pair, worker in workers.items():
            row = {"item": pair[0], "peer": pair[1], "unit": work.unit(pair[0])}
            if worker.error is not None:
                bench.row(**row, error=worker.error)
            elif rates[pair]:
                bench.row(**row, rate=statistics.median(rates[pair]), turns=len(rates[pair]))
            worker.process.kill()


TURNS, TURN = 3, 1.5  # seconds each


# ---- correctness ----------------------------------------------------------------------------


@part
def precision(bench: Bench) -> None:
    """What TF32 and bf16 change: the same weights and the same training, paired per episode."""
    methods = ("protonet",) if bench.small else ("protonet", "maml", "relationnet", "metagan")
    steps, episodes = (4, 8) if bench.small else (200, 600)
    names = ("fp32", "tf32", "bf16")
    for method in methods:
        trained: dict[str, np.ndarray] = {}
        for name in names:
            if bench.over(4, f"{method} {name}"):
                return
            with bench.told(method=method, precision=name, steps=steps) as row:
                parts = prepare(
                    configure(
                        method, dataset=work.dataset(), way=5, shot=1, steps=steps,
                        validate_every=0, device=str(bench.device), precision=name,
                        episodes=episodes,
                    ),
                    Silent(),
                )  # fmt: skip
                with parts.lowering.running():
                    make_trainer(parts).run()
                    own = evaluate(parts.lowering, parts.test, episodes, chunk=100).accuracy
                trained[name] = own
                row["accuracy"] = float(own.mean())
                row |= {"trained_minus_fp32": paired(own, trained["fp32"])}
                if name != "fp32":  # the same weights, evaluated in full precision
                    full = choose("eager", parts.method, bench.device)
                    with full.running():
                        exact = evaluate(full, parts.test, episodes, chunk=100).accuracy
                    row["evaluated_minus_fp32"] = paired(own, exact)


def paired(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Mean difference in points, and its 95 % half width."""
    found = paired_difference(a, b, ranks=False)
    return {"points": 100 * found.difference, "half_width": 100 * (found.half_width or 0.0)}


# ---- growth ---------------------------------------------------------------------------------


@part
def growth(bench: Bench) -> None:
    """How a step grows with tasks, way, shot, inner steps and image size; what stops it."""
    import growth as cpu

    blocks: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
        "tasks a step (maml)": ("task_batch", (1, 4, 16, 32, 64, 128, 256, 512), cpu.MAML),
        "tasks a step (protonet)": ("task_batch", (1, 4, 16, 64, 256, 512), cpu.PROTONET),
        "way (protonet)": ("train_way", (5, 20, 60), cpu.PROTONET | {"task_batch": 1}),
        "shot (maml)": ("shot", (1, 5), cpu.MAML),
        "inner steps (maml)": ("inner_steps", (1, 5, 10), cpu.MAML),
        "image size (protonet)": (
            "image_size", (28, 84, 224), cpu.PROTONET | {"task_batch": 2},
        ),
    }  # fmt: skip
    for block, (name, values, settings) in blocks.items():
        for value in values[: 1 if bench.small else None]:
            if bench.over(3, f"{block} {value}"):
                return
            with bench.told(block=block, value=value) as row:
                ms, _ = cpu.step_ms(settings | {name: value}, bench.device, 2 if bench.small else 7)
                row["step_ms"] = ms


# ---- published rows -------------------------------------------------------------------------

LARGEST = 15 * 2**20  # bytes of an archive that is kept
ROWS = (
    ("protonet", 5, 1), ("protonet", 5, 5), ("protonet", 20, 1), ("protonet", 20, 5),
    ("maml", 5, 1), ("maml", 5, 5), ("metagan", 5, 1), ("metagan", 5, 5),
)  # fmt: skip


@part
def rows(bench: Bench) -> None:
    """Published rows, in order, each as long as there is time; what is cut off can be resumed."""
    folder = Path(tempfile.mkdtemp())
    for method, way, shot in ROWS[:1] if bench.small else ROWS:
        if bench.over(10, f"{method} {way}w{shot}s"):
            return
        with bench.told(method=method, way=way, shot=shot) as row:
            words = [sys.executable, "-m", "fewshot_bench", "run", method]
            words += ["--dataset", work.dataset(), "--way", str(way), "--shot", str(shot)]
            words += ["--device", str(bench.device), "--preset"]
            words += ["quick", "--steps", "4", "--episodes", "8"] if bench.small else ["paper"]
            words += ["--runs-dir", str(folder), "--keep-checkpoints", "1"]
            before = set(folder.glob("*"))
            process = subprocess.Popen(words)
            try:
                process.wait(max(5.0, bench.left() - 8))
            except subprocess.TimeoutExpired:
                process.terminate()  # it then writes a checkpoint
                row["left"] = "its end"
            try:
                process.wait(20)
            finally:
                process.kill()
            made = set(folder.glob("*")) - before
            if (process.returncode and "left" not in row) or not made:
                row["error"] = f"exit status {process.returncode}"
            for run in made:
                record = json.loads((run / "record.json").read_text("utf-8"))
                training, test = record["training"] or {}, record["test"] or {}
                row |= {
                    "status": record["status"],
                    "step": training.get("steps"),
                    "seconds": training.get("seconds"),
                    "test": {k: test.get(k) for k in ("accuracy", "half_width")},
                    "step_ms": record["timing"].get("step_ms"),
                }
                archive = shutil.make_archive(str(folder / run.name), "zip", run)
                if Path(archive).stat().st_size < LARGEST:
                    shutil.move(archive, bench.keep / Path(archive).name)
                else:
                    row["kept"] = f"not: over {LARGEST >> 20} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--keep", type=Path, default=Path("."), help="folder for what comes back")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--small", action="store_true")
    asked = parser.parse_args()
    PARTS[asked.part](Bench(asked))


if __name__ == "__main__":
    main()
