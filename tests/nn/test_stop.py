"""Stopped gradients can be recorded and replayed."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

from fewshot_bench.nn import record, replay, stop


def value(x: Tensor) -> Tensor:
    """x**2 * stop(x) + stop(2 x)"""
    return x.square() * stop(x) + stop(2 * x)


def test_stop_is_a_constant_for_autograd() -> None:
    x = torch.tensor(3.0, requires_grad=True)
    value(x).backward()
    assert x.grad == 18  # 2 x * 3
    assert not stop(x).requires_grad


def test_replay_freezes_what_was_recorded_in_order() -> None:
    x = torch.tensor(3.0, requires_grad=True)
    with record() as constants:
        value(x)
    assert [c.item() for c in constants] == [3, 6]
    assert not any(c.requires_grad for c in constants)
    y = torch.tensor(5.0, requires_grad=True)
    for _ in range(2):  # a recording can be replayed as often as one likes
        with replay(constants):
            assert value(y) == 25 * 3 + 6
    assert value(y) == 25 * 5 + 10


def test_a_stop_that_was_not_recorded_is_an_error() -> None:
    x = torch.tensor(3.0)
    with record() as constants:
        stop(x)
    with pytest.raises(StopIteration), replay(constants):
        value(x)
    assert stop(x) == 3  # and the replay ended nevertheless


def test_a_recording_ends_when_its_block_raises() -> None:
    with pytest.raises(ZeroDivisionError), record() as constants:
        _ = 1 / 0
    stop(torch.tensor(1.0))
    assert constants == []


def test_a_thread_has_its_own_tape() -> None:
    seen: list[Tensor] = []
    with record() as constants, replay([torch.tensor(7.0)]):
        thread = threading.Thread(target=lambda: seen.append(stop(torch.tensor(1.0))))
        thread.start()
        thread.join()
        assert stop(torch.tensor(2.0)) == 7
    assert seen == [1]
    assert constants == []
