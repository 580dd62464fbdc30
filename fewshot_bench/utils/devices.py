"""What differs between a processor and a GPU, on one page.

The rest of the package works on tensors of any device; code that exists only for a GPU is in
``engine/executors/graph.py`` and ``nn/columns_triton.py``. ``cpu`` and ``cuda`` are the kinds that
a run may have; ``meta`` is torch's device of tensors without numbers, which has the rules of a GPU
(nothing may be read on the host, nothing may come from another device), so that the tests run the
GPU's branches of the code on it.

* **Which way is faster or more accurate**: :func:`is_gpu`, asked where kernels are chosen.
* **Autocast**: :func:`autocast`.
* **Time**: :func:`clock_of`. A CPU is timed by the host's clock, a GPU by events.
* **Order of work**: :func:`make_stream`, :func:`on_stream`, :func:`wait`.
* **Memory**: :func:`free_memory`, :func:`peak_memory`, :func:`release_memory`, :func:`capturing`.
* **Generators**: :func:`generator_states`.
* **What the machine is**: :func:`pick_device`, :func:`about`.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from fewshot_bench.errors import ConfigError

# What nvidia-smi is asked for, and what the record calls it.
_SMI = {
    "driver": "driver_version",
    "clock_mhz": "clocks.sm",
    "max_clock_mhz": "clocks.max.sm",
    "memory_clock_mhz": "clocks.mem",
    "power_limit_w": "power.limit",
}


def is_gpu(where: Tensor | torch.device) -> bool:
    """Whether this is on a GPU, or on ``meta``, which stands for one.

    Where kernels are chosen it means: launches are what costs, not operations; sums are accurate
    in every memory format; nothing should be read on the host before a window of steps has ended.
    """
    return (where.device if isinstance(where, Tensor) else where).type != "cpu"


def has_graphs(device: torch.device) -> bool:
    """Whether a step can be captured in a graph."""
    return device.type == "cuda"


# ---- autocast -------------------------------------------------------------------------------


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    """This thread's autocast to a type; None: switched off. ``meta`` has none."""
    if device.type == "meta":
        return nullcontext()
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


# ---- time -----------------------------------------------------------------------------------


class HostClock:
    """A monotonic clock, which knows nothing of work that a device has not done yet."""

    name = "host clock"

    def now(self) -> Any:
        """A moment."""
        return time.perf_counter_ns()

    def ms(self, begin: Any, end: Any) -> float:
        """Milliseconds between two moments."""
        return float(end - begin) / 1e6

    def wait(self, moment: Any) -> None:
        """Until the device has reached a moment."""


class EventClock(HostClock):
    """Events in the device's own order of work; reading one waits for it, recording does not."""

    name = "device events"

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def now(self) -> Any:
        # Within a graph it is a moment of each replay, which only external events show.
        inside = torch.cuda.is_current_stream_capturing()
        event = torch.cuda.Event(enable_timing=True, external=inside)
        # By name: torch's current GPU is the first one, whichever a run is on.
        event.record(torch.cuda.current_stream(self._device))
        return event

    def ms(self, begin: Any, end: Any) -> float:
        return float(begin.elapsed_time(end))

    def wait(self, moment: Any) -> None:
        moment.synchronize()


def clock_of(device: torch.device) -> HostClock:
    """What times work on a device."""
    return EventClock(device) if device.type == "cuda" else HostClock()


# ---- order of work --------------------------------------------------------------------------


def make_stream(device: torch.device) -> torch.cuda.Stream | None:
    """A stream of one's own; None where work is done as it is called."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None


@contextmanager
def on_stream(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Work in a stream of its own, in order with what is done before and after; None: do not.

    Everything that a graph holds has to be warmed up in the stream that it is captured in: the
    nodes of autograd that add up a parameter's gradient belong to the stream in which they were
    made, and a captured step that met one of another stream would wait for that.
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
    """Until the device has done everything."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# ---- memory ---------------------------------------------------------------------------------


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free; None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def peak_memory(device: torch.device) -> int:
    """Largest number of bytes allocated on a GPU; on a CPU, the process's largest resident size."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def release_memory(device: torch.device) -> None:
    """Give back what the allocator holds and nobody uses."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def capturing(device: torch.device) -> bool:
    """Whether a graph is being captured, inside of which nothing can be tried again."""
    return device.type == "cuda" and bool(torch.cuda.is_current_stream_capturing())


# ---- generators -----------------------------------------------------------------------------


def generator_states() -> list[Tensor]:
    """States of torch's generators on the GPUs that are in use; none while a graph is captured."""
    if not torch.cuda.is_initialized() or torch.cuda.is_current_stream_capturing():
        return []
    return torch.cuda.get_rng_state_all()


def set_generator_states(states: list[Tensor]) -> None:
    """Put :func:`generator_states` back; those of GPUs that are not here are left out."""
    for i, state in enumerate(states[: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, i)


# ---- what the machine is --------------------------------------------------------------------


def pick_device(name: str) -> torch.device:
    """The device of this name; ``auto``: a GPU if there is one.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"--device {name}: give auto, cpu, cuda or cuda:N.") from error
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= found:
            raise ConfigError(
                f"--device {name}: torch sees {found} CUDA devices here; give --device cpu."
            )
    elif device.type != "cpu":
        raise ConfigError(f"--device {name}: give auto, cpu, cuda or cuda:N.")
    return device


def about(device: torch.device) -> dict[str, Any]:
    """What a GPU's times depend on, for the record; empty for a CPU, which ``environment`` names.

    Returns:
        ``name``, ``memory_bytes``, ``compute_capability``, ``cudnn`` and, as far as nvidia-smi
        says, ``driver``, ``clock_mhz`` (of that moment), ``max_clock_mhz``, ``memory_clock_mhz``
        and ``power_limit_w``.
    """
    if device.type != "cuda":
        return {}
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "cudnn": torch.backends.cudnn.version(),
        **_from_driver(properties),
    }


def _from_driver(properties: Any) -> dict[str, Any]:
    """What the driver says of the GPU; nothing where it is not asked or does not answer."""
    # By its identity: the visible devices need not be counted as the driver counts them.
    which = [f"--id=GPU-{properties.uuid}"] if getattr(properties, "uuid", None) else []
    query = ["--query-gpu=" + ",".join(_SMI.values()), "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(
            ["nvidia-smi", *which, *query], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    values = [value.strip() for value in said.split("\n")[0].split(",")]
    found: dict[str, Any] = {}
    for name, value in zip(_SMI, values, strict=False):
        if name == "driver":
            found[name] = value
            continue
        try:
            found[name] = float(value)
        except ValueError:  # "[N/A]"
            continue
    return found
