"""What differs between a processor and a GPU; a stand-in for ``torch.cuda`` is the GPU."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fewshot_bench.engine.timing import StepTimer, Stopwatch
from fewshot_bench.errors import ConfigError
from fewshot_bench.results.record.environment import describe_device
from fewshot_bench.utils import devices

CPU, META = torch.device("cpu"), torch.device("meta")
GPU = torch.device("cuda", 0)


class Card:
    """A GPU of which only the order of what is asked is known; its time passes as work is given."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.ms = 0.0
        self.capturing = False
        self.states = [torch.zeros(2, dtype=torch.uint8), torch.ones(2, dtype=torch.uint8)]

    def work(self, ms: float) -> None:
        self.ms += ms


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    """A machine with two GPUs in place of what there is."""
    own = Card()

    class Event:
        def __init__(self, *, enable_timing: bool, external: bool = False) -> None:
            assert enable_timing
            self.external = external

        def record(self, stream: Stream) -> None:
            self.at, self.stream = own.ms, stream

        def elapsed_time(self, end: Event) -> float:
            return end.at - self.at

        def synchronize(self) -> None:
            own.done.append("waited for an event")

    class Stream:
        def __init__(self, device: torch.device, name: str = "side") -> None:
            self.device, self.name = device, name

        def wait_stream(self, other: Stream) -> None:
            own.done.append(f"{self.name} waits for {other.name}")

    @contextmanager
    def entered(stream: Stream) -> Iterator[None]:
        own.done.append(f"in {stream.name}")
        yield

    properties = SimpleNamespace(
        name="NVIDIA Stand-in", total_memory=80 * 2**30, major=9, minor=0, uuid="1234"
    )
    for name, value in {
        "Event": Event,
        "Stream": Stream,
        "stream": entered,
        "current_stream": lambda device: Stream(device, "main"),
        "synchronize": lambda device: own.done.append("waited for the device"),
        "mem_get_info": lambda device: (3 * 10**9, 80 * 10**9),
        "max_memory_allocated": lambda device: 12345,
        "empty_cache": lambda: own.done.append("cache emptied"),
        "is_current_stream_capturing": lambda: own.capturing,
        "is_initialized": lambda: True,
        "is_available": lambda: True,
        "device_count": lambda: len(own.states),
        "get_rng_state_all": lambda: [state.clone() for state in own.states],
        "set_rng_state": lambda state, i: own.states.__setitem__(i, state),
        "get_device_properties": lambda device: properties,
    }.items():
        monkeypatch.setattr(f"torch.cuda.{name}", value)
    monkeypatch.setattr("torch.backends.cudnn.version", lambda: 91002)
    return own


def driver_says(monkeypatch: pytest.MonkeyPatch, text: str | Exception) -> list[list[str]]:
    """Let nvidia-smi print this; the commands that were run."""
    asked: list[list[str]] = []

    def run(words: list[str], **_: Any) -> Any:
        asked.append(words)
        if isinstance(text, Exception):
            raise text
        return SimpleNamespace(stdout=text)

    monkeypatch.setattr("subprocess.run", run)
    return asked


def test_kinds() -> None:
    assert not devices.is_gpu(CPU)
    assert not devices.is_gpu(torch.ones(1))
    assert devices.is_gpu(torch.ones(1, device="meta"))
    assert [devices.is_gpu(d) for d in (GPU, META)] == [True, True]
    assert [devices.has_graphs(d) for d in (GPU, META, CPU)] == [True, False, False]


@pytest.mark.parametrize("device", [CPU, GPU])
def test_autocast(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def autocast(*words: Any, **more: Any) -> Any:
        asked.append((*words, more["enabled"]))
        return nullcontext()

    monkeypatch.setattr("torch.autocast", autocast)
    with devices.autocast(device, torch.bfloat16), devices.autocast(device, None):
        pass
    assert asked == [(device.type, torch.bfloat16, True), (device.type, torch.bfloat16, False)]
    with devices.autocast(META, torch.bfloat16):
        pass
    assert len(asked) == 2  # of meta, torch has no autocast


def test_a_step_on_a_gpu_is_timed_by_events(card: Card) -> None:
    timer = StepTimer(GPU, warmup=0)
    timer.start()
    for ms in (1.0, 20.0, 3.0):
        card.work(ms)
        timer.mark()
    assert not card.done  # nothing waits inside a step
    timer.flush()
    assert card.done == ["waited for an event"]
    assert {name: ms.tolist() for name, ms in timer.columns().items()} == {
        "step_ms": [24.0],
        "sample_ms": [1.0],
        "forward_backward_ms": [20.0],
        "optimizer_ms": [3.0],
    }
    assert timer.clock.name == "device events"
    assert StepTimer(CPU).clock.name == "host clock"


def test_events_inside_a_graph_are_external(card: Card) -> None:
    clock = devices.EventClock(GPU)
    assert not clock.now().external
    card.capturing = True
    assert [clock.now().external for _ in range(3)] == [True] * 3


def test_events_are_of_the_gpu_that_works(card: Card) -> None:
    """The current one is the first, whichever a run is on."""
    second = torch.device("cuda", 1)
    watch = Stopwatch(second)
    watch.mark()
    assert [event.stream.device for event in watch._marks] == [second] * 2


def test_a_stopwatch_waits_for_the_gpu_when_it_is_read(card: Card) -> None:
    watch = Stopwatch(GPU)
    for ms in (3.0, 5.0):
        card.work(ms)
        watch.mark()
    assert not card.done
    assert watch.laps() == [3.0, 5.0]
    assert card.done == ["waited for the device"]
    here = Stopwatch(CPU)
    here.mark()
    [ms] = here.laps()
    assert ms > 0
    assert len(card.done) == 1


@pytest.mark.parametrize("fault", [False, True])
def test_work_in_a_stream_of_its_own(card: Card, fault: bool) -> None:
    """In order with what is done before and after, whatever happens."""
    stream = devices.make_stream(GPU)
    try:
        with devices.on_stream(stream):
            card.done.append("work")
            if fault:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fault
    assert card.done == ["side waits for main", "in side", "work", "main waits for side"]
    assert devices.make_stream(CPU) is None
    with devices.on_stream(None):
        pass


def test_memory_of_a_gpu(card: Card) -> None:
    assert devices.free_memory(GPU) == 3 * 10**9
    assert devices.peak_memory(GPU) == 12345
    devices.release_memory(GPU)
    devices.wait(GPU)
    assert card.done == ["cache emptied", "waited for the device"]
    assert not devices.capturing(GPU)
    card.capturing = True
    assert devices.capturing(GPU)
    assert not devices.capturing(CPU)


def test_memory_of_this_machine() -> None:
    free = devices.free_memory(CPU)
    assert free is None or free > 10e6
    assert devices.peak_memory(CPU) > 50e6  # of this process
    devices.release_memory(CPU)
    devices.wait(CPU)


def test_generators_of_every_gpu(card: Card) -> None:
    states = devices.generator_states()
    card.states = [torch.full((2,), 9, dtype=torch.uint8)]  # the second GPU is gone
    devices.set_generator_states(states)
    assert torch.equal(card.states[0], states[0])
    assert len(card.states) == 1
    card.capturing = True
    assert devices.generator_states() == []


def test_devices_that_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.pick_device("cpu").type == "cpu"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert devices.pick_device("auto").type == "cpu"
    for name in ("cuda", "cuda:3", "tpu", "mps", "meta", "nonsense device"):
        with pytest.raises(ConfigError, match="--device"):
            devices.pick_device(name)


def test_devices_of_a_machine_with_two_gpus(card: Card) -> None:
    assert devices.pick_device("auto").type == "cuda"
    assert devices.pick_device("cuda:1").index == 1
    with pytest.raises(ConfigError, match="sees 2 CUDA devices"):
        devices.pick_device("cuda:2")


def test_what_the_record_says_of_a_gpu(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = driver_says(monkeypatch, "580.159.03, 1980, 1980, 2619, [N/A]\n")
    assert describe_device(GPU) == {
        "type": "cuda",
        "name": "NVIDIA Stand-in",
        "memory_bytes": 80 * 2**30,
        "compute_capability": "9.0",
        "cudnn": 91002,
        "driver": "580.159.03",
        "clock_mhz": 1980.0,
        "max_clock_mhz": 1980.0,
        "memory_clock_mhz": 2619.0,
    }
    assert asked[0][:2] == ["nvidia-smi", "--id=GPU-1234"]
    assert describe_device(GPU)["name"] == "NVIDIA Stand-in"


@pytest.mark.parametrize(
    "fault", [FileNotFoundError(), subprocess.CalledProcessError(9, "nvidia-smi")]
)
def test_a_driver_that_does_not_answer(
    card: Card, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    driver_says(monkeypatch, fault)
    assert describe_device(GPU)["memory_bytes"] == 80 * 2**30
    assert "driver" not in describe_device(GPU)


def test_what_the_record_says_of_this_machine() -> None:
    found = describe_device(CPU)
    assert set(found) == {"type", "name"}
    assert found["type"] == "cpu"
    assert "cores" in found["name"]


# What is itself about a GPU alone, or asks for something else than what kind of device there is.
ELSEWHERE = {
    "engine/executors/graph.py": {"torch.cuda"},  # captures
    "nn/columns.py": {"is_cuda"},  # whether Triton's kernels can be had
    "nn/columns_triton.py": {"torch.cuda", "is_cuda"},
    "results/record/environment.py": {"torch.cuda"},  # the version that torch was built for
}
DEPENDS = {"torch.cuda", "torch.autocast", "is_cuda", "is_cpu"}


def dependent(path: Path) -> Iterator[tuple[int, str]]:
    """(line, what) of every place where a file asks for the kind of a device, or is about one."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        text = ast.unparse(node) if isinstance(node, ast.Attribute | ast.Compare) else ""
        if isinstance(node, ast.Attribute):
            if text in DEPENDS or node.attr in DEPENDS:
                yield node.lineno, text if text in DEPENDS else node.attr
        elif (
            isinstance(node, ast.Compare) and ".type" in text and ("cpu" in text or "cuda" in text)
        ):
            yield node.lineno, text


def test_nothing_else_asks_what_a_device_is() -> None:
    package = Path(devices.__file__).parents[1]
    files = [*package.rglob("*.py"), *(package.parent / "plugins").rglob("*.py")]
    wrong = [
        f"{path}:{line}: {what}"
        for path in files
        if path.name != "devices.py"
        for line, what in dependent(path)
        if what not in ELSEWHERE.get(path.relative_to(package.parent).as_posix()[14:], set())
    ]
    assert not wrong, "\n".join(wrong)
    assert len(list(dependent(package / "utils" / "devices.py"))) > 20
