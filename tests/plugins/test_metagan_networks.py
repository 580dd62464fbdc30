"""Encoders and generators of MetaGAN: shapes, ranges, sizes."""

from __future__ import annotations

import pytest
import torch
from fsb_metagan.networks import SamePad, halved, make_encoder, make_generator

NAMES = ("paper", "tutorial", "small")
SHAPES = ((1, 28, 28), (3, 84, 84), (2, 17, 30))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_generators_fill_the_image_and_its_range(name: str, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    for low, high in ((-1.0, 1.0), (0.0, 1.0)):
        generator = make_generator(name, 12, shape, (low, high))
        images = generator(torch.randn(2, 12))
        assert images.shape == (2, *shape)
        assert images.min() >= low
        assert images.max() <= high
        # The whole range is within reach, and the generator starts near its middle.
        extremes = generator(torch.randn(2, 12) * 1e6)
        assert extremes.min() < low + 0.01
        assert extremes.max() > high - 0.01
        assert images.mean().item() == pytest.approx((low + high) / 2, abs=0.2)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_encoders_give_one_code_per_image(name: str, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    encoder = make_encoder(name, shape)
    images = torch.rand(3, *shape)
    codes = encoder(images)
    assert codes.shape == (3, encoder.out_features)
    torch.testing.assert_close(encoder(images[1:2]), codes[1:2], rtol=1e-4, atol=1e-6)


def test_sizes_of_the_papers_networks() -> None:
    paper, tutorial = (make_generator(n, 356, (1, 28, 28), (-1.0, 1.0)) for n in NAMES[:2])
    assert paper.start == (512, 2, 2)
    assert [block.size[0] for block in paper.blocks] == [4, 7, 14, 28]
    assert [block.second.out_channels for block in paper.blocks] == [512, 256, 128, 1]
    assert tutorial.start == (256, 7, 7)
    assert [(b.size[0], b.conv.out_channels) for b in tutorial.blocks] == [
        (7, 128),
        (14, 64),
        (28, 1),
    ]
    assert {b.conv.kernel_size for b in tutorial.blocks} == {(5, 5)}
    for name in NAMES[:2]:
        encoder = make_encoder(name, (1, 28, 28))
        convs = [m for m in encoder.body if isinstance(m, torch.nn.Conv2d)]
        assert [(m.out_channels, m.stride[0]) for m in convs] == [
            (64, 1), (64, 2), (128, 1), (128, 2), (256, 1), (256, 2),
        ]  # fmt: skip
        assert encoder.out.in_features == 256 * 4 * 4
        assert encoder.out_features == 256


def test_the_tutorials_padding_is_behind_for_even_sizes() -> None:
    """28 -> 14 pads (0, 1); 7 -> 4 pads (1, 1)."""
    even = SamePad()(torch.ones(1, 1, 28, 28))
    assert even.shape[-1] == 29
    assert (even[..., 0, :-1] == 1).all()
    assert (even[..., -1, :] == 0).all()
    odd = SamePad()(torch.ones(1, 1, 7, 7))
    assert odd.shape[-1] == 9
    assert (odd[..., 0, :] == 0).all()


def test_halved_rounds_up() -> None:
    assert [halved(28, n) for n in range(5)] == [28, 14, 7, 4, 2]
    assert halved(84, 4) == 6


def test_the_tutorials_layers_start_glorot_uniform() -> None:
    torch.manual_seed(0)
    generator = make_generator("tutorial", 356, (1, 28, 28), (-1.0, 1.0))
    weight = generator.input.weight
    bound = (6 / (356 + 256 * 49)) ** 0.5
    assert 0.99 * bound < weight.abs().max() <= bound
    assert (generator.input.bias == 0).all()
