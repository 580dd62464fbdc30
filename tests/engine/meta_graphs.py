"""A stand-in for CUDA graphs on the ``meta`` device: recorded operations, which can be repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from torch import Tensor

from fewshot_bench.testing.meta_device import MetaDevice, _leaves, as_a_gpu


class Graph:
    """Recorded operations on the values of tensors."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def replay(self) -> None:
        """Repeat the operations on the same tensors, with the same Python numbers."""
        for func, args, kwargs, results in self.calls:
            again = _leaves(func(*args, **kwargs))
            for old, new in zip(_leaves(results), again, strict=True):
                # A result written in place, or a view, is already in its memory.
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class GraphDevice(MetaDevice):
    """A device whose operations a graph can record."""

    def __init__(self) -> None:
        super().__init__()
        self._recorded: Graph | None = None

    @contextmanager
    def graph(self, graph: Graph) -> Iterator[None]:
        """Record the operations of the block, and restore all values after it."""
        before = [(values, values.clone()) for values in self._values.values()]
        try:
            with mock.patch.object(self, "_recorded", graph):
                yield
        finally:
            for values, bytes_ in before:
                values.copy_(bytes_)

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = super().run(func, args, kwargs)
        if self._recorded is not None:
            self._recorded.calls.append((func, args, kwargs, result))
        return result


class Event(int):
    """An event of a graph: no time passes between two."""

    def record(self, stream: object) -> None:
        pass


@contextmanager
def with_graphs(device: GraphDevice) -> Iterator[None]:
    """Names of ``torch.cuda`` that capture on the device."""
    replaced: dict[str, Callable[..., Any]] = {
        "torch.cuda.CUDAGraph": Graph,
        "torch.cuda.graph": lambda graph, **_: device.graph(graph),
        "torch.cuda.current_stream": lambda *_: None,
        "torch.cuda.Event": lambda **_: Event(),
        "torch.cuda.is_current_stream_capturing": lambda: False,
    }
    with ExitStack() as stack:
        for path, value in replaced.items():
            stack.enter_context(mock.patch(path, value))
        yield


@contextmanager
def as_a_gpu_with_graphs(device: GraphDevice) -> Iterator[None]:
    with with_graphs(device), as_a_gpu(device):
        yield
