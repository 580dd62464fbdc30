"""The global generators of torch, NumPy and Python: detect, preserve and seed them.

They have a state that everything shares: who draws from them gives numbers that depend on what ran
before and beside. So fewshot-bench draws from :mod:`fewshot_bench.rng`, and notices who does not.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewshot_bench.rng import key_of
from fewshot_bench.utils.devices import gpu_generator_states


def global_generators() -> dict[str, Any]:
    """The states of the global generators by name; see :func:`generators_used`."""
    return {
        "torch's global generator": [torch.get_rng_state(), *gpu_generator_states()],
        "numpy's global generator": np.random.get_state(),
        "Python's random module": random.getstate(),
    }


def generators_used(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Names of the generators that something drew from, or seeded, between two states."""
    return [name for name, state in before.items() if not _equal(state, after[name])]


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, list | tuple):
        return all(map(_equal, one, other))
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    return np.array_equal(one, other)


@contextmanager
def generators_preserved() -> Iterator[None]:
    """Restore the states of the global generators at the end."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


@contextmanager
def generators_seeded(*key: str | int) -> Iterator[None]:
    """Seed the global generators from these words and numbers; restore their states at the end.

    What a plugin draws from them while it is imported or built is then the same in every process.
    """
    with generators_preserved():
        seed = key_of(*key)
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        yield
