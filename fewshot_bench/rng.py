"""Keyed randomness: every random number is a pure function of (key, tag, position).

A key is a 64-bit integer, held in an int64 tensor of shape [T] (one per task). Numbers come from
SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014)
used as a counter-based generator: the n-th number of a stream is ``mix(stream + n * GOLDEN)``.
Only integer additions, multiplications, shifts and exclusive-ors are used, so every device,
platform, thread and batch size gives the same bits. There is no state and nothing to seed.

:func:`global_generators` is about the others, which have a state that everything shares: who draws
from them gives numbers that depend on what was run before and beside.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewshot_bench.utils.devices import generator_states

_GOLDEN = -0x61C8864680B583EB  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -0x40A7B892E31B1A47  # 0xBF58476D1CE4E5B9
_MIX_2 = -0x6B2FB644ECCEEE15  # 0x94D049BB133111EB


def key_of(*parts: int | str) -> int:
    """A key from any number of integers and strings: the same everywhere, for ever."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def fold(key: Tensor, data: Tensor | int | str) -> Tensor:
    """A new key for each key and datum (a tensor that broadcasts against ``key``)."""
    if isinstance(data, str):
        data = key_of(data)
    if isinstance(data, int):
        # Worked out here: a number that went to a GPU as a tensor would cost a wait for the device.
        return _mix(_mix(key + _GOLDEN) ^ _signed(data * _GOLDEN))
    return _mix(_mix(key + _GOLDEN) ^ (data.to(key.device) * _GOLDEN))


def bits(key: Tensor, tag: str, shape: Sequence[int] = ()) -> Tensor:
    """Random 63-bit integers, >= 0: int64 of shape [*key.shape, *shape]."""
    count = math.prod(shape)
    stream = fold(key, tag)
    counter = torch.arange(1, count + 1, device=key.device) * _GOLDEN
    raw = _mix(stream.unsqueeze(-1) + counter)
    return (raw & 0x7FFFFFFFFFFFFFFF).reshape((*key.shape, *shape))


def uniform(
    key: Tensor, tag: str, shape: Sequence[int] = (), dtype: torch.dtype = torch.float32
) -> Tensor:
    """Uniform numbers in [0, 1): shape [*key.shape, *shape]."""
    width = 24 if dtype == torch.float32 else 53
    return (bits(key, tag, shape) >> (63 - width)).to(dtype) * 2.0**-width


def normal(
    key: Tensor, tag: str, shape: Sequence[int] = (), dtype: torch.dtype = torch.float32
) -> Tensor:
    """Standard normal numbers (Box and Muller 1958): shape [*key.shape, *shape].

    Computed in float64 and rounded, so that float32 results agree between platforms but for
    the rarest of roundings.
    """
    angle = uniform(key, tag + "/angle", shape, torch.float64) * (2 * math.pi)
    radius = (-2 * torch.log1p(-uniform(key, tag + "/radius", shape, torch.float64))).sqrt()
    return (radius * angle.cos()).to(dtype)


def below(key: Tensor, tag: str, bound: Tensor | int, shape: Sequence[int] = ()) -> Tensor:
    """Random integers in [0, bound): int64 of shape [*key.shape, *shape].

    ``bound`` broadcasts against that shape. The bias of the remainder is under bound / 2**63.
    """
    return bits(key, tag, shape) % bound


def permutation(key: Tensor, tag: str, n: int) -> Tensor:
    """A uniform permutation of 0..n-1 for each key: int64 [*key.shape, n]."""
    return bits(key, tag, (n,)).argsort(dim=-1, stable=True)


def subset(key: Tensor, tag: str, size: Tensor, k: int) -> Tensor:
    """k distinct integers of [0, size), in uniform random order: int64 [*key.shape, k].

    Floyd's algorithm (Bentley and Floyd, CACM 1987), then a permutation: the cost depends on k
    alone, not on ``size``, which may differ from key to key (int64, shape of ``key``) but has
    to be at least k.

    The algorithm draws the i-th candidate of [0, size - k + i] and takes that range's end instead
    where the candidate was taken before: by an equal candidate, or as the end of an earlier range
    that was taken so itself. That second way is a chain of references, followed by doubling; step
    by step, thousands of small operations would cost more than the images do.
    """
    place = torch.arange(k, device=key.device)
    first = (size - k).unsqueeze(-1)
    candidate = bits(key, tag + "/floyd", (k,)) % (first + place + 1)
    again = (candidate.unsqueeze(-1) == candidate.unsqueeze(-2)).tril(-1).any(-1)
    refers_to = candidate - first  # the range that this candidate is the end of, if any
    earlier = (refers_to >= 0) & (refers_to < place)
    refers_to = torch.where(earlier, refers_to, place)
    for _ in range((k - 1).bit_length()):
        again = again | again.gather(-1, refers_to)
        refers_to = refers_to.gather(-1, refers_to)
    chosen = torch.where(again, first + place, candidate)
    return chosen.gather(-1, permutation(key, tag + "/order", k))


def global_generators() -> dict[str, Any]:
    """The states of the generators that a process has one of, by name; see :func:`moved`."""
    states: dict[str, Any] = {
        "torch's global generator": [torch.get_rng_state()],
        "numpy's global generator": np.random.get_state(),
        "Python's random module": random.getstate(),
    }
    states["torch's global generator"] += generator_states()
    return states


def moved(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Names of the generators that somebody drew from (or seeded) between two states."""
    return [name for name, state in before.items() if not _same(state, after[name])]


@contextmanager
def generators_kept() -> Iterator[None]:
    """Leave the global generators as they were found, whatever draws from them meanwhile."""
    own, python = np.random.get_state(), random.getstate()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            np.random.set_state(own)
            random.setstate(python)


@contextmanager
def generators_seeded(*of: str | int) -> Iterator[None]:
    """Draw from the global generators what these words and numbers decide; they are kept.

    torch's, numpy's and Python's: whatever a plugin draws from while it is imported or built, it
    draws the same in every process.
    """
    with generators_kept():
        seed = key_of(*of)
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        yield


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list | tuple):
        return all(map(_same, one, other))
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other))
    return torch.equal(one, other) if isinstance(one, Tensor) else bool(one == other)


def _signed(number: int) -> int:
    """The low 64 bits as a signed integer: what int64 arithmetic makes of an overflow."""
    return (number + 2**63) % 2**64 - 2**63


def _mix(x: Tensor) -> Tensor:
    """The finalizer of SplitMix64 on int64, where ``>>`` copies the sign: masks undo that."""
    x = (x >> 30).bitwise_and_(0x3FFFFFFFF).bitwise_xor_(x).mul_(_MIX_1)
    x = (x >> 27).bitwise_and_(0x1FFFFFFFFF).bitwise_xor_(x).mul_(_MIX_2)
    return (x >> 31).bitwise_and_(0x1FFFFFFFF).bitwise_xor_(x)
