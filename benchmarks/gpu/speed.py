"""The parts of ``measure.py`` that take times."""

from __future__ import annotations

import logging
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import work
from bench import Bench
from kernels import by_kind
from limit import measure as limits_of
from limit import product
from table import describe_machine
from torch.profiler import ProfilerActivity
from turns import Worker, peers_python

from fewshot_bench.config.resolve import configure
from fewshot_bench.engine.evaluation import evaluate
from fewshot_bench.engine.executors import Eager, choose
from fewshot_bench.engine.executors.base import products_in
from fewshot_bench.nn import columns
from fewshot_bench.runs.context import RunContext
from fewshot_bench.runs.prepare import PreparedRun, prepare
from fewshot_bench.runs.train import evaluation_chunk
from fewshot_bench.utils import devices


def machine(bench: Bench) -> None:
    """What everything was taken on: versions, driver, clocks, and the best rates there are."""
    about = describe_machine(bench.device, limits_of(bench.device, repeats=2 if bench.small else 9))
    about["products"] = {"fp32": about["limits"]["flops"]}
    if bench.cuda:
        card = devices.gpu_properties(bench.device)
        about["nvidia_smi"] = ", ".join(f"{name} {value}" for name, value in card.items())
        about["products"]["bf16"] = product(bench.device, torch.bfloat16)
        with products_in("tf32"):
            about["products"]["tf32"] = product(bench.device, torch.float32)
    about["triton"] = triton(bench.device)
    bench.row(**about)


def triton(device: torch.device) -> bool:
    """Whether the copies of columns.py are Triton's kernels here, and not torch's operations."""
    return columns._kernels(torch.empty(0, device=device)) is not None


# (engine, how per-task weights are run, precision); what is asked first stands first, so that a
# part whose time is short leaves what matters least.
Way = tuple[str, str | None, str]
GPU_WAYS: tuple[Way, ...] = (
    ("graph", None, "fp32"),
    ("graph", None, "tf32"),
    ("eager", None, "fp32"),
    ("graph", "batched", "tf32"),
    ("batched", None, "fp32"),
    ("im2col", None, "fp32"),
)
BF16: tuple[Way, ...] = (("graph", None, "bf16"),)  # of a method that declares autocast
CPU_WAYS: tuple[Way, ...] = (
    ("eager", None, "fp32"),
    ("batched", None, "fp32"),
    ("im2col", None, "fp32"),
)
WARM_UP = 3  # steps
LEAST = 5  # steps, the warm-up among them
LONGEST = 12.0  # seconds of a row
MINIATURE = 0.1  # seconds of a row
AHEAD = 0.2  # seconds of work that the device may have before it
# Seconds of the shortest row of an item on an H200: made ready, captured, and so few steps.
SHORTEST = {"W1": 1.5, "W2": 1.0, "W5": 2.0}


def time_training(bench: Bench, items: tuple[str, ...], ways: tuple[Way, ...]) -> None:
    """A row for each item and way: ms of a step, of its phases, and the rate."""
    ways = ways if bench.cuda else CPU_WAYS
    pieces = [(item, way) for way in ways for item in items]
    if bench.small:  # every item, and every way
        others = () if "W5" in items else ways[1:]  # W5 is the most expensive item
        pieces = [*((item, ways[0]) for item in items), *((items[0], way) for way in others)]
    for i, (item, way) in enumerate(pieces):
        if bench.over(SHORTEST[item[:2]], f"{item} {way}"):
            break
        share = bench.left() / (len(pieces) - i)
        engine, strategy, precision = way
        with bench.told(item=item, engine=engine, strategy=strategy, precision=precision) as row:
            seconds = MINIATURE if bench.small else min(share, LONGEST)
            row |= time_steps(bench, item, engine, strategy, precision, seconds)


class Lines(logging.Handler):
    """Collects what the package logs in its block."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def __enter__(self) -> None:
        logging.getLogger("fewshot_bench").addHandler(self)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("fewshot_bench").removeHandler(self)


def time_steps(
    bench: Bench, item: str, engine: str, strategy: Any, precision: str, seconds: float
) -> dict[str, Any]:
    """Steps of a training item for so many seconds and no fewer than ``LEAST``."""
    end = time.monotonic() + seconds
    said: list[str] = []
    bench.fresh()
    prepared = work.prepare(
        item, bench.device, small=bench.small, engine=engine, precision=precision, strategy=strategy
    )
    trainer = prepared.trainer
    assert trainer is not None
    with Lines(said), prepared.executor.running():
        take_steps(prepared, bench.device, WARM_UP + 1 if bench.small else LEAST, end)
        trainer.flush()
    tasks = trainer.plan.task_batch
    summary: dict[str, Any] = trainer.timer.summary(tasks)
    ms = summary["step_ms"]["median"]
    each = 1 if work.unit(item) == "steps/s" else tasks
    flops = prepared.flops_per_unit * each
    sample = summary["phases"].get("sample")
    return {
        "ran_as": prepared.executor.name,
        "triton": triton(bench.device),
        "step_ms": ms,
        "p95_ms": summary["step_ms"]["p95"],
        "phases": summary["phases"],
        "sampling_share": None if sample is None else sample / ms,
        "rate": each / ms * 1e3,
        "unit": work.unit(item),
        "tasks": tasks,
        "steps": trainer.step,
        "flops_per_step": flops,
        "of_limit": of_limit(bench.machine(), flops / ms * 1e3, precision),
        "peak_memory": bench.peak(),
        "said": said,
    }


def take_steps(prepared: work.Work, device: torch.device, least: int, end: float) -> None:
    """Take steps until a reading of ``time.monotonic()``, and at least so many.

    A replay is only handed over: a host that did not wait would be through with its time while the
    device has most of the work before it. It waits for a step that lies ``AHEAD`` back, so that the
    device never idles, and of steps that are fast never before the end of their window.
    """
    assert prepared.trainer is not None
    clock, handed = devices.clock_of(device), deque[Any]()
    for _ in range(least):
        prepared.step()
    prepared.trainer.flush()
    ms = prepared.trainer.timer.columns()["step_ms"][-1]
    most = max(1, int(1e3 * AHEAD / ms))
    while time.monotonic() < end:
        prepared.step()
        handed.append(clock.now())
        if len(handed) > most:
            clock.wait(handed.popleft())


def of_limit(machine: dict[str, Any], flops: float, precision: str) -> float | None:
    """The fraction of the card's matrix product at a precision; None where that is unknown."""
    products = machine.get("products") or {}
    return flops / products[precision] if products.get(precision) else None


def maml(bench: Bench) -> None:
    """W1: a step of 32 tasks."""
    time_training(bench, ("W1_second_order", "W1_first_order", "W1_one_shot_one_step"), GPU_WAYS)


def protonet(bench: Bench) -> None:
    """W2: a step of one task."""
    ways = (*GPU_WAYS[:2], *BF16, *GPU_WAYS[2:])
    time_training(bench, ("W2_5way", "W2_60way"), ways)


def metagan(bench: Bench) -> None:
    """W5: a step of the tutorial's preset, 32 tasks."""
    time_training(bench, ("W5",), GPU_WAYS)


# (item, as a run does it or eagerly, tasks a call or the run's, precision), by value.
EVALUATIONS: tuple[tuple[str, str, int | None, str], ...] = (
    ("W4_maml", "run", None, "fp32"),
    ("W4_maml", "eager", None, "fp32"),
    ("W4_maml", "run", None, "tf32"),
    ("W4_protonet_batch_statistics", "run", None, "fp32"),
    ("W4_protonet_running_statistics", "run", None, "fp32"),
    ("W4_maml", "run", 32, "fp32"),
    ("W4_maml", "eager", 32, "fp32"),
    ("W4_protonet_batch_statistics", "run", None, "tf32"),
)


# On an H200, with 32 tasks a call: 1.1 s to be ready, 1.9 s for the first one, 1.4 s for another.
MAML_EVALUATED = 5.0


def evaluation(bench: Bench) -> None:
    """W4 and W3: 600 test episodes, as a run evaluates and eagerly; delivery of episodes."""
    for item, way, chunk, precision in EVALUATIONS[: 2 if bench.small else None]:
        seconds = MAML_EVALUATED if item == "W4_maml" else 3
        if bench.over(seconds, f"{item} {way} {chunk or ''} {precision}"):
            return
        with bench.told(item=item, way=way, precision=precision) as row:
            row |= time_evaluation(bench, item, way, chunk, precision)
    if not bench.over(2, "W3"):
        with bench.told(item="W3") as row:
            row |= delivery(bench)


def time_evaluation(
    bench: Bench, item: str, way: str, chunk: int | None, precision: str
) -> dict[str, Any]:
    """Seconds of an evaluation: the first apart, and the median of up to three others."""
    bench.fresh()
    parts = evaluated(item, bench, precision)
    executor = parts.executor
    if way == "eager":
        executor = choose("eager", parts.method, bench.device, precision=precision)
    chunk, count, most = (4, 8, 2) if bench.small else (chunk or evaluation_chunk(parts), 600, 4)
    times: list[float] = []
    with executor.running():
        # One is a figure; the others are taken while there is time for them.
        while len(times) < 2 or (len(times) < most and bench.left() > times[-1]):
            bench.wait()
            start = time.perf_counter()
            scores = evaluate(executor, parts.test, count, chunk=chunk)
            times.append(time.perf_counter() - start)
    seconds = statistics.median(times[1:])
    # Where every image is embedded once, a task needs less.
    once = item == "W4_protonet_running_statistics"
    flops = None if once else count * work.flops_of_task(Eager(parts.method), parts.test)
    return {
        "chunk": chunk,
        "ran_as": executor.name,
        "triton": triton(bench.device),
        "seconds": seconds,
        "of_limit": flops and of_limit(bench.machine(), flops / seconds, precision),
        "first_s": times[0],
        "repeats": len(times) - 1,
        "episodes": count,
        "accuracy": float(scores.accuracy.mean()),
        "peak_memory": bench.peak(),
    }


def evaluated(item: str, bench: Bench, precision: str) -> PreparedRun:
    """Everything of an evaluation item, as ``fsb run`` makes it."""
    settings = work.settings_of(item) | {"device": str(bench.device), "precision": precision}
    return prepare(RunContext(configure(settings.pop("method"), **settings)))


def delivery(bench: Bench) -> dict[str, Any]:
    """W3: episodes a second, 64 at a time."""
    prepared = work.prepare("W3", bench.device, small=bench.small)
    prepared.step()
    bench.wait()
    rates = []
    for _ in range(3):
        start = time.perf_counter()
        units = prepared.step()
        bench.wait()
        rates.append(units / (time.perf_counter() - start))
    rate = statistics.median(rates)
    limit = (bench.machine().get("limits") or {}).get("bytes")
    return {
        "rate": rate,
        "unit": "episodes/s",
        "of_limit": None if limit is None else rate * prepared.bytes_per_unit / limit,
    }


# Seconds of each on an H200, those of the first with the start of its process.
PROFILES = {"W1_second_order": 8.0, "W5": 3.0, "W2_5way": 1.0}
PROFILED = 3  # steps


def profile(bench: Bench) -> None:
    """Where the device's time of a step goes, kernel by kernel and kind by kind."""
    for item, seconds in list(PROFILES.items())[: 1 if bench.small else None]:
        if bench.over(seconds, item):
            return
        precision = "tf32" if bench.cuda else "fp32"
        with bench.told(item=item, precision=precision) as row:
            bench.fresh()
            prepared = work.prepare(item, bench.device, small=bench.small, precision=precision)
            assert prepared.trainer is not None
            with prepared.executor.running():
                for _ in range(LEAST):
                    prepared.step()
                bench.wait()
                activity = ProfilerActivity.CUDA if bench.cuda else ProfilerActivity.CPU
                with torch.profiler.profile(activities=[activity]) as seen:
                    for _ in range(PROFILED):
                        prepared.step()
                    bench.wait()
            prepared.trainer.flush()
            steps = prepared.trainer.timer.columns()["step_ms"]
            row["step_ms"] = statistics.median(
                steps[WARM_UP:LEAST].tolist()
            )  # warm, and not looked at
            row["triton"] = triton(bench.device)
            row["kernels"], row["kinds"] = kernels(seen.key_averages(), bench.cuda)


def kernels(averages: Any, cuda: bool) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The 25 that take most time, ms and calls of a step; and each kind's ms of all of them."""
    clock = "self_device_time_total" if cuda else "self_cpu_time_total"  # microseconds
    timed = sorted(((getattr(op, clock), op) for op in averages), key=lambda x: -x[0])
    everything = [
        {"kernel": op.key, "ms": us / PROFILED / 1e3, "calls": op.count / PROFILED}
        for us, op in timed
    ]
    rows = [k | {"kernel": k["kernel"][:110], "ms": round(k["ms"], 4)} for k in everything[:25]]
    total = sum(k["ms"] for k in everything)
    calls = sum(k["calls"] for k in everything)
    kinds = {kind: round(ms, 4) for kind, ms in by_kind(everything).items()}
    return [{"kernel": "all", "ms": total, "calls": calls}, *rows], kinds


PEERS = ("learn2learn", "torchopt", "higher")
PEER_ITEMS = ("W1_second_order", "W1_first_order", "W1_one_shot_one_step", "W4_maml", "W2_5way")
TURNS, TURN = 3, 1.5  # seconds each


def peers(bench: Bench) -> None:
    """The others' steps of the same items on the same card; ours are the parts above.

    All are made ready at the same time, and then those of an item take turns; its rows are written
    before the next item begins.
    """
    pairs = [(item, peer) for item in PEER_ITEMS for peer in PEERS]
    pairs = pairs[:1] if bench.small else pairs
    with ready(bench, pairs) as workers:
        for item in dict.fromkeys(item for item, _ in pairs):
            own = {peer: worker for (of, peer), worker in workers.items() if of == item}
            rates: dict[str, list[float]] = {peer: [] for peer in own}
            for turn in range(TURNS):
                for peer, worker in own.items():
                    # Of each at least one, while there is time at all.
                    if worker.error is None and (bench.small or bench.left() > (4 if turn else 2)):
                        try:
                            rates[peer].append(worker.turn())
                        except RuntimeError as error:
                            worker.error = str(error)
            for peer, worker in own.items():
                row = {"item": item, "peer": peer, "unit": work.unit(item)}
                if not worker.offered:
                    bench.row(**row, not_offered=worker.error)
                elif worker.error is not None:
                    bench.row(**row, error=worker.error)
                elif rates[peer]:
                    rate = statistics.median(rates[peer])
                    bench.row(**row, rate=rate, turns=len(rates[peer]))
                else:
                    bench.row(left=f"{item} {peer}")


@contextmanager
def ready(bench: Bench, pairs: list[tuple[str, str]]) -> Iterator[dict[tuple[str, str], Worker]]:
    """A worker for each item and peer, made ready side by side; ended with the block."""
    python = peers_python() or sys.executable
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(len(pairs)) as pool:
        data = Path(folder) / "images.npz"
        work.write_arrays(data)

        def start(pair: tuple[str, str]) -> Worker:
            return Worker(python, pair[1], pair[0], data, bench.device, bench.small, TURN)

        workers = dict(zip(pairs, pool.map(start, pairs), strict=True))
        try:
            yield workers
        finally:
            for worker in workers.values():
                if hasattr(worker, "process"):
                    with worker.process as process:  # waits, and closes its pipes
                        process.kill()


PARTS: tuple[Callable[[Bench], None], ...] = (
    machine, maml, protonet, evaluation, metagan, profile, peers,
)  # fmt: skip
