"""``--profile``: where the time of a few steps goes, operation by operation."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

from fewshot_bench.engine.timing import WARM_UP
from fewshot_bench.engine.training import Trainer
from fewshot_bench.utils.devices import is_gpu, wait
from fewshot_bench.utils.torch_private import profiler_settings

SETTLING = 2  # steps, on a GPU behind those before the capture
STEPS = 3
PROFILED = WARM_UP + SETTLING + STEPS
ROWS = 10
WIDTH = 100  # of an operation's name; those of kernels have hundreds of letters


def profile_steps(trainer: Trainer, folder: Path) -> str:
    """Profile a few steps of a trainer, made for that over a copy of the method: :func:`table`.

    Writes ``trace.json`` (for chrome://tracing or Perfetto) into the folder.
    """
    gpu = is_gpu(trainer.device)
    trainer.method.train()
    for _ in range(SETTLING + (WARM_UP if gpu else 0)):
        trainer.advance()
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if gpu else [])
    # Task threads are not the thread that profiles.
    everywhere = profiler_settings(profile_all_threads=True)
    with profile(activities=activities, acc_events=True, experimental_config=everywhere) as seen:
        for _ in range(STEPS):
            trainer.advance()
        wait(trainer.device)
    seen.export_chrome_trace(str(folder / "trace.json"))
    return table(seen.key_averages(), gpu)


def table(averages: Iterable[Any], gpu: bool) -> str:
    """The operations that took most time themselves, of what torch's profiler saw of ``STEPS``.

    On a GPU kernels count; torch notes their time again at the operation that launched them.
    """
    clock = "self_device_time_total" if gpu else "self_cpu_time_total"  # in microseconds
    counted = [
        op
        for op in averages
        if not gpu or (op.device_type.name != "CPU" and not op.is_user_annotation)
    ]
    timed = sorted(((getattr(op, clock), op) for op in counted), key=lambda x: -x[0])
    total = sum(time for time, _ in timed) or 1
    lines = [f"{'share':>7}  {'ms/step':>9}  {'calls/step':>10}  operation"]
    for time, op in timed[:ROWS]:
        share, ms, calls = time / total, time / STEPS / 1e3, op.count / STEPS
        lines.append(f"{share:7.1%}  {ms:9.2f}  {calls:10.0f}  {op.key[:WIDTH]}")
    return "\n".join(lines)
