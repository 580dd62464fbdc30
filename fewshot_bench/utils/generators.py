"""The global generators of torch, NumPy and Python: detect, preserve and seed them.

Who draws from them gives numbers that depend on what ran before and beside. So fewshot-bench draws
from :mod:`fewshot_bench.rng`, and notices who does not.
"""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewshot_bench.rng import key_of
from fewshot_bench.utils.devices import gpu_generator_states, set_gpu_generator_states

TORCH, NUMPY, PYTHON = (
    "torch's global generator", "numpy's global generator", "Python's random module",
)  # fmt: skip


def global_generators() -> dict[str, Any]:
    """The states of the global generators by name; a checkpoint holds them too."""
    torch_states = [torch.get_rng_state(), *gpu_generator_states()]
    return {TORCH: torch_states, NUMPY: np.random.get_state(), PYTHON: random.getstate()}


def restore_generators(states: Mapping[str, Any]) -> None:
    """Restore :func:`global_generators`, except those of GPUs that are missing here."""
    on_cpu, *on_gpus = states[TORCH]
    torch.set_rng_state(on_cpu)
    set_gpu_generator_states(on_gpus)
    np.random.set_state(states[NUMPY])
    random.setstate(states[PYTHON])


def generators_used(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Names of the generators that something drew from, or seeded, between two states."""
    # By parts: that of a GPU may be missing in one of the two.
    return [name for name, parts in before.items() if not all(map(known_equal, parts, after[name]))]


def known_equal(one: Any, other: Any) -> bool:
    """Whether two nested values are known to be equal; False for what cannot be compared."""
    if type(one) is not type(other):
        return False
    try:
        if isinstance(one, Tensor):
            return torch.equal(one, other)
        if isinstance(one, np.ndarray):
            return bool(np.array_equal(one, other))
        if isinstance(one, dict):
            one, other = [*one.items()], [*other.items()]
        if isinstance(one, list | tuple):
            return len(one) == len(other) and all(map(known_equal, one, other))
        return bool(one == other)
    except Exception:
        return False


@contextmanager
def generators_preserved() -> Iterator[None]:
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


@contextmanager
def generators_seeded(*key: str | int) -> Iterator[None]:
    """Seed the global generators from these words and numbers; restore their states at the end."""
    with generators_preserved():
        seed = key_of(*key)
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        yield
