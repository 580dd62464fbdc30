"""All differences between a CPU and a GPU; code for GPUs alone is in ``engine/executors/graph.py``
and ``nn/columns_triton.py``.

A run uses ``cpu`` or ``cuda``. ``meta``, torch's device of tensors without data, follows the rules
of a GPU (nothing is read on the host, no mixing of devices): tests run the GPU's branches on it.
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor

from fewshot_bench.errors import ConfigError

# Names in the record: queries of nvidia-smi.
_SMI = {
    "driver": "driver_version",
    "clock_mhz": "clocks.sm",
    "max_clock_mhz": "clocks.max.sm",
    "memory_clock_mhz": "clocks.mem",
    "power_limit_w": "power.limit",
}


def is_gpu(where: Tensor | torch.device) -> bool:
    """Whether a tensor or device is a GPU's (or ``meta``, which stands for one).

    Code that chooses kernels by it assumes: launches cost more than operations; sums are accurate
    in every memory format; nothing may be read on the host within a window of steps.
    """
    return (where.device if isinstance(where, Tensor) else where).type != "cpu"


def has_graphs(device: torch.device) -> bool:
    return device.type == "cuda"


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    """Autocast of this thread to ``dtype``; None: off. ``meta`` has none."""
    if device.type == "meta":
        return nullcontext()
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


class HostClock:
    """The host's monotonic clock; it does not wait for work on a device."""

    name = "host clock"

    def now(self) -> Any:
        return time.perf_counter_ns()

    def ms(self, begin: Any, end: Any) -> float:
        return float(end - begin) / 1e6

    def wait(self, moment: Any) -> None:
        """Wait until the device has reached a time."""


class EventClock(HostClock):
    """Events in the device's stream; recording one does not wait, reading it does."""

    name = "device events"

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def now(self) -> Any:
        # In a captured graph only external events are recorded at each replay.
        inside = torch.cuda.is_current_stream_capturing()
        event = torch.cuda.Event(enable_timing=True, external=inside)
        # Of this device: torch's current GPU is the first one, whichever the run uses.
        event.record(torch.cuda.current_stream(self._device))
        return event

    def ms(self, begin: Any, end: Any) -> float:
        return float(begin.elapsed_time(end))

    def wait(self, moment: Any) -> None:
        moment.synchronize()


def clock_of(device: torch.device) -> HostClock:
    return EventClock(device) if device.type == "cuda" else HostClock()


def make_stream(device: torch.device) -> torch.cuda.Stream | None:
    """A new stream; None on a CPU."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None


@contextmanager
def on_stream(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Work in a stream, in order with the work before and after; None: in the current stream.

    A graph has to be warmed up in the stream in which it is captured: autograd's nodes that
    accumulate gradients belong to the stream in which they were made.
    """
    if stream is None:
        yield
        return
    stream.wait_stream(torch.cuda.current_stream(stream.device))
    try:
        with torch.cuda.stream(stream):
            yield
    finally:  # also after an exception: the caller reads the weights in its own stream
        torch.cuda.current_stream(stream.device).wait_stream(stream)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free_memory(device: torch.device) -> int | None:
    """Free bytes; None if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def peak_memory(device: torch.device) -> int:
    """Peak bytes allocated on a GPU; on a CPU, the process's peak resident size."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def release_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()


def capturing(device: torch.device) -> bool:
    """Whether a graph is being captured; nothing can be retried inside."""
    return device.type == "cuda" and bool(torch.cuda.is_current_stream_capturing())


def gpu_generator_states() -> list[Tensor]:
    """States of torch's generators on the GPUs in use; none while a graph is captured."""
    if not torch.cuda.is_initialized() or torch.cuda.is_current_stream_capturing():
        return []
    return torch.cuda.get_rng_state_all()


def set_gpu_generator_states(states: list[Tensor]) -> None:
    """Restore :func:`gpu_generator_states`, except those of GPUs that are missing here."""
    for i, state in enumerate(states[: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, i)


def pick_device(name: str) -> torch.device:
    """The device with this name (``auto``: a GPU if there is one); ConfigError for no device."""
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if found else "cpu"
    device = None
    with suppress(RuntimeError):
        device = torch.device(name)
    if device is None or device.type not in ("cpu", "cuda"):
        raise ConfigError(f"--device {name}: expected auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and (device.index or 0) >= found:
        raise ConfigError(f"--device {name}: torch found {found} CUDA devices; use --device cpu.")
    return device


def gpu_properties(device: torch.device) -> dict[str, Any]:
    """What a GPU's times depend on, for the record; empty for a CPU."""
    if device.type != "cuda":
        return {}
    properties = torch.cuda.get_device_properties(device)
    found: dict[str, Any] = {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "cudnn": torch.backends.cudnn.version(),
    }
    # By UUID: the driver may number the devices differently.
    which = [f"--id=GPU-{properties.uuid}"] if getattr(properties, "uuid", None) else []
    query = ["--query-gpu=" + ",".join(_SMI.values()), "--format=csv,noheader,nounits"]
    with suppress(OSError, subprocess.SubprocessError):  # no nvidia-smi, or no answer
        line = subprocess.run(
            ["nvidia-smi", *which, *query], capture_output=True, text=True, timeout=10, check=True
        ).stdout.partition("\n")[0]
        for name, value in zip(_SMI, line.split(","), strict=False):
            with suppress(ValueError):  # "[N/A]"
                found[name] = value.strip() if name == "driver" else float(value)
    return found
