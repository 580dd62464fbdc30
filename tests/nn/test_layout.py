"""Memory layout changes speed and no number."""

from __future__ import annotations

import torch
from fsb_backbones.conv import conv4_strided

from fewshot_bench.nn import double_backward, expects_double_backward


def test_a_network_looks_the_same_either_way() -> None:
    torch.manual_seed(0)
    net = conv4_strided((1, 28, 28), channels=8).double()
    images = torch.rand(6, 1, 28, 28, dtype=torch.float64)

    def gradient() -> list[torch.Tensor]:
        loss = (net(images) ** 2).mean((1, 2, 3)).cos().sum()
        return list(torch.autograd.grad(loss, list(net.parameters())))

    assert not expects_double_backward()
    once = gradient()
    with double_backward():
        assert expects_double_backward()
        assert net(images).is_contiguous()
        with double_backward(False):
            assert not expects_double_backward()
        twice = gradient()
    assert net(images).is_contiguous(memory_format=torch.channels_last)
    for a, b in zip(once, twice, strict=True):
        assert torch.allclose(a, b, atol=1e-12)
