"""Keyed randomness: the same bits everywhere, and random enough."""

import numpy as np
import pytest
import scipy.stats
import torch

from fewshot_bench.rng import below, bits, fold, key_of, normal, permutation, subset, uniform


def splitmix64(x: int) -> int:
    """The finalizer in Python's unbounded integers, as the reference."""
    mask = (1 << 64) - 1
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


def test_known_stream_of_splitmix64() -> None:
    # The first outputs of SplitMix64 seeded with 1234567, a widely published test vector.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    golden, mask = 0x9E3779B97F4A7C15, (1 << 64) - 1
    assert [splitmix64((1234567 + golden * n) & mask) for n in (1, 2, 3)] == expected


def test_bits_follow_the_reference() -> None:
    key = torch.tensor([key_of("a", 1), -5, 0])
    golden, mask = 0x9E3779B97F4A7C15, (1 << 64) - 1
    drawn = bits(key, "tag", (4,))
    for k, row in zip(key.tolist(), drawn.tolist(), strict=True):
        inner = splitmix64((k + golden) & mask) ^ ((key_of("tag") * golden) & mask)
        stream = splitmix64(inner)
        want = [splitmix64((stream + n * golden) & mask) & (mask >> 1) for n in (1, 2, 3, 4)]
        assert row == want


def test_key_of_is_pinned() -> None:
    assert key_of("episodes", 0) == key_of("episodes", 0)
    assert key_of("a", 1) != key_of("a", "1") != key_of("a1")
    assert key_of("fewshot", 7) == 1669034698350131298


def test_a_batch_is_its_parts() -> None:
    keys = torch.arange(10)
    whole = normal(keys, "z", (3, 2))
    parts = [normal(keys[i : i + 3], "z", (3, 2)) for i in range(0, 10, 3)]
    assert torch.equal(whole, torch.cat(parts))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distributions(dtype: torch.dtype) -> None:
    key = torch.tensor([3])
    u = uniform(key, "u", (50_000,), dtype)[0].double().numpy()
    z = normal(key, "z", (50_000,), dtype)[0].double().numpy()
    assert u.min() >= 0
    assert u.max() < 1
    assert scipy.stats.kstest(u, "uniform").pvalue > 1e-3
    assert scipy.stats.kstest(z, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(z[:-1], z[1:])[0, 1]) < 0.02


def test_neighboring_keys_are_independent() -> None:
    first = uniform(fold(torch.tensor(1), torch.arange(20_000)), "u").numpy()
    assert scipy.stats.kstest(first, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.02


def test_below_is_uniform() -> None:
    drawn = below(torch.arange(30_000), "b", 7)
    counts = torch.bincount(drawn, minlength=7).numpy()
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_subsets_are_distinct_uniform_and_in_uniform_order() -> None:
    keys = torch.arange(24_000)
    drawn = subset(keys, "s", torch.full_like(keys, 4), 3)
    assert (drawn.sort(1).values.diff(dim=1) > 0).all()
    code = drawn[:, 0] * 16 + drawn[:, 1] * 4 + drawn[:, 2]
    counts = np.unique(code.numpy(), return_counts=True)[1]
    assert len(counts) == 24  # every ordered triple of 4 things
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_subsets_are_those_of_floyds_algorithm_step_by_step() -> None:
    sizes = torch.arange(40).remainder(9) + 12  # small, so that candidates are often taken
    drawn = subset(torch.arange(40), "s", sizes, 12)
    candidates = bits(torch.arange(40), "s/floyd", (12,)).tolist()
    orders = permutation(torch.arange(40), "s/order", 12).tolist()
    for row, draws, order, size in zip(drawn.tolist(), candidates, orders, sizes, strict=True):
        chosen: list[int] = []
        for i, draw in enumerate(draws):
            last = int(size) - 12 + i
            candidate = draw % (last + 1)
            chosen.append(last if candidate in chosen else candidate)
        assert row == [chosen[j] for j in order]


def test_permutations_are_uniform() -> None:
    drawn = permutation(torch.arange(12_000), "p", 3)
    counts = np.unique((drawn * torch.tensor([9, 3, 1])).sum(1).numpy(), return_counts=True)[1]
    assert len(counts) == 6
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
