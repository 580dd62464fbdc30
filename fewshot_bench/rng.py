"""Keyed randomness: every random number is a pure function of (key, tag, position).

A key is a 64-bit integer, held in an int64 tensor of shape [T] (one per task). Numbers come from
SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014)
used as a counter-based generator: the n-th number of a stream is ``mix(stream + n * GOLDEN)``.
Only integer additions, multiplications, shifts and exclusive-ors are used, so every device,
platform, thread and batch size gives the same bits. There is no state and nothing to seed. A tag
decides its numbers, so tags keep their spelling.
"""

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

_GOLDEN = -0x61C8864680B583EB  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -0x40A7B892E31B1A47  # 0xBF58476D1CE4E5B9
_MIX_2 = -0x6B2FB644ECCEEE15  # 0x94D049BB133111EB


def key_of(*parts: int | str) -> int:
    """A key from any number of integers and strings: the same on every platform."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def fold(key: Tensor, data: Tensor | int | str) -> Tensor:
    """A new key for each key and datum (a tensor that broadcasts against ``key``)."""
    if isinstance(data, str):
        data = key_of(data)
    if isinstance(data, int):
        # Computed on the host: copying a number to a GPU as a tensor waits for the device.
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

    Computed in float64 and rounded, so that float32 results agree between platforms, except for
    very rare roundings.
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

    Floyd's algorithm (Bentley and Floyd, CACM 1987), then a permutation: the cost depends on k,
    not on ``size`` (int64, shape of ``key``, each at least k).
    """
    # The i-th candidate is drawn from [0, size - k + i] and replaced by the end of that range if it
    # was chosen before: as an earlier candidate, or as the end of an earlier range. The latter is a
    # chain of references, resolved by pointer doubling; a loop over k would be far slower.
    place = torch.arange(k, device=key.device)
    first = (size - k).unsqueeze(-1)
    candidate = bits(key, tag + "/floyd", (k,)) % (first + place + 1)
    again = (candidate.unsqueeze(-1) == candidate.unsqueeze(-2)).tril(-1).any(-1)
    refers_to = candidate - first  # the earlier range whose end the candidate is, if any
    earlier = (refers_to >= 0) & (refers_to < place)
    refers_to = torch.where(earlier, refers_to, place)
    for _ in range((k - 1).bit_length()):
        again = again | again.gather(-1, refers_to)
        refers_to = refers_to.gather(-1, refers_to)
    chosen = torch.where(again, first + place, candidate)
    return chosen.gather(-1, permutation(key, tag + "/order", k))


def _signed(number: int) -> int:
    """The low 64 bits as a signed integer, as int64 arithmetic overflows."""
    return (number + 2**63) % 2**64 - 2**63


def _mix(x: Tensor) -> Tensor:
    """The finalizer of SplitMix64 on int64; the masks undo that ``>>`` copies the sign."""
    x = (x >> 30).bitwise_and_(0x3FFFFFFFF).bitwise_xor_(x).mul_(_MIX_1)
    x = (x >> 27).bitwise_and_(0x1FFFFFFFFF).bitwise_xor_(x).mul_(_MIX_2)
    return (x >> 31).bitwise_and_(0x1FFFFFFFF).bitwise_xor_(x)
