"""The stand-in for a GPU in place of torch's own functions for one."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch

from fewshot_bench.testing.meta import Graph, MetaDevice
from fewshot_bench.testing.offenses import META


class _Event:
    """An event of a graph: it was at once, and no time has passed."""

    def record(self, stream: object) -> None:
        pass

    def __sub__(self, other: _Event) -> int:
        return 0


@contextmanager
def as_a_gpu(device: MetaDevice) -> Iterator[MetaDevice]:
    """Let the toolkit, torch and its optimizers take ``meta`` for a GPU, with graphs and events.

    The stand-ins replace names of ``torch.cuda``, which has nothing to do on such a device, and the
    switches of autocast, of which torch has none for it.
    """
    with ExitStack() as stack:
        for path, value in _stand_ins(device).items():
            stack.enter_context(mock.patch(path, value))
        yield stack.enter_context(device)


def _stand_ins(device: MetaDevice) -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {
        "torch.cuda.CUDAGraph": Graph,
        "torch.cuda.graph": lambda graph, **_: device.graph(graph),
        "torch.cuda.current_stream": lambda *_: None,
        "torch.cuda.Event": lambda **_: _Event(),
        "torch.cuda.is_current_stream_capturing": lambda: False,
        **_autocast(),
    }
    # torch asks by the device's name whether an optimizer may hold its state there.
    for module in list(sys.modules.values()):
        for name in ("_get_capturable_supported_devices", "_get_foreach_kernels_supported_devices"):
            own = getattr(module, "__name__", "")
            if own.startswith("torch.optim") and name in vars(module):
                found[f"{own}.{name}"] = lambda *_, **__: [META.type]
    return found


def _autocast() -> dict[str, Callable[..., Any]]:
    """torch's switches of autocast, and one for ``meta`` that can be read and changes no number."""
    state: dict[str, Any] = {"enabled": False, "dtype": torch.float16}  # as CUDA's at first
    here: dict[str, Callable[..., Any]] = {
        "torch._C._is_autocast_available": lambda: True,
        "torch.is_autocast_enabled": lambda: state["enabled"],
        "torch.get_autocast_dtype": lambda: state["dtype"],
        "torch.set_autocast_enabled": lambda enabled: state.update(enabled=enabled),
        "torch.set_autocast_dtype": lambda dtype: state.update(dtype=dtype),
    }

    def switch(own: Callable[..., Any], mine: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: mine(*args[1:]) if args[:1] == (META.type,) else own(*args)

    return {path: switch(pkgutil.resolve_name(path), mine) for path, mine in here.items()}
