"""``--profile``: where the time of a few steps goes, operation by operation."""

from __future__ import annotations

from pathlib import Path

from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity, profile

from fewshot_bench.devices import is_gpu, wait
from fewshot_bench.engine.training import Trainer

WARM_UP = 2
STEPS = 3
PROFILED = WARM_UP + STEPS
ROWS = 10


def profile_steps(trainer: Trainer, folder: Path) -> str:
    """Profile a few steps of a trainer that is thrown away afterwards.

    Writes ``trace.json`` (for chrome://tracing or Perfetto) into the folder.

    Arguments:
        trainer: over a copy of the method, of ``PROFILED`` steps; inside its
            lowering's ``running()`` block.
        folder: of the run.

    Returns:
        A table of the operations that took most time themselves.
    """
    gpu = is_gpu(trainer.device)
    trainer.method.train()
    for _ in range(WARM_UP):
        trainer.advance()
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if gpu else [])
    # Task threads are not the thread that profiles.
    everywhere = _ExperimentalConfig(profile_all_threads=True)
    with profile(activities=activities, acc_events=True, experimental_config=everywhere) as seen:
        for _ in range(STEPS):
            trainer.advance()
        wait(trainer.device)
    seen.export_chrome_trace(str(folder / "trace.json"))
    clock = "self_device_time_total" if gpu else "self_cpu_time_total"  # in microseconds
    timed = sorted(((getattr(op, clock), op) for op in seen.key_averages()), key=lambda x: -x[0])
    total = sum(time for time, _ in timed) or 1
    lines = [f"{'share':>7}  {'ms/step':>9}  {'calls/step':>10}  operation"]
    for time, op in timed[:ROWS]:
        lines.append(
            f"{time / total:7.1%}  {time / STEPS / 1e3:9.2f}  {op.count / STEPS:10.0f}  {op.key}"
        )
    return "\n".join(lines)
