"""Memory layout changes speed and no number."""

from __future__ import annotations

import torch
from fsb_backbones.conv import conv4, conv4_strided

from fewshot_bench.nn import double_backward


def test_a_network_looks_the_same_in_any_layout() -> None:
    for network, layout in (
        (conv4, torch.channels_last),
        (conv4_strided, torch.contiguous_format),
    ):
        torch.manual_seed(0)
        net = network((3, 28, 28), channels=8).double()
        images = torch.rand(6, 3, 28, 28, dtype=torch.float64)
        found = []
        for given in (images, images.contiguous(memory_format=torch.channels_last)):
            maps = net(given)
            loss = (maps**2).mean((1, 2, 3)).cos().sum()
            found.append(torch.autograd.grad(loss, list(net.parameters())))
        assert net.blocks[0](images.contiguous(memory_format=layout)).is_contiguous(
            memory_format=layout
        )
        for a, b in zip(*found, strict=True):
            assert torch.allclose(a, b, atol=1e-12)


def test_saying_that_gradients_are_differentiated_changes_no_gradient() -> None:
    torch.manual_seed(0)
    net = conv4_strided((1, 28, 28), channels=8).double()
    images = torch.rand(6, 1, 28, 28, dtype=torch.float64)

    def gradient() -> list[torch.Tensor]:
        loss = (net(images) ** 2).mean((1, 2, 3)).cos().sum()
        return list(torch.autograd.grad(loss, list(net.parameters())))

    once = gradient()
    with double_backward():
        twice = gradient()
    for a, b in zip(once, twice, strict=True):
        assert torch.allclose(a, b, atol=1e-12)
