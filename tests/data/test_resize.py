"""The three ways of resizing, against other people's implementations."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fewshot_bench.data.transforms import resize

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 1, 105, 105), dtype=np.uint8)


@pytest.mark.parametrize("size", [14, 28, 32, 84, 128])
def test_nearest_is_pillows_for_1_bit_images(size: int) -> None:
    """Whatever filter Pillow is asked for: it resizes mode "1" by nearest neighbor."""
    binary = (IMAGES > 127).astype(np.uint8) * np.uint8(255)
    ours = resize(binary, size, "nearest")
    for image, resized in zip(binary, ours, strict=True):
        bits = Image.fromarray(image[0]).convert("1", dither=Image.Dither.NONE)
        theirs = np.asarray(bits.resize((size, size), Image.Resampling.LANCZOS).convert("L"))
        assert np.array_equal(resized[0], theirs)


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "antialias"])
def test_height_and_width_may_differ(mode: str) -> None:
    """Each side alone: a picture that does not vary along the other is resized as a square is."""
    rows = np.repeat(IMAGES[:1, :, :, :1], 105, axis=3)
    wide = resize(rows, (28, 60), mode)  # type: ignore[arg-type]
    square = resize(rows, 28, mode)  # type: ignore[arg-type]
    assert wide.shape == (1, 1, 28, 60)
    assert np.array_equal(wide, np.repeat(square[..., :1], 60, axis=3))


def test_bilinear_weighs_four_pixels() -> None:
    """105 -> 28: the center of output pixel 0 is at (0.5 * 3.75) - 0.5 = 1.375."""
    ours = resize(IMAGES, 28, "bilinear")
    near = IMAGES[:, 0, 1:3, 1:3].astype(float)
    rows = 0.625 * near[:, 0] + 0.375 * near[:, 1]
    expected = 0.625 * rows[:, 0] + 0.375 * rows[:, 1]
    assert np.abs(ours[:, 0, 0, 0] - expected).max() <= 0.51


def test_antialias_is_pillows_bilinear_of_gray_images() -> None:
    ours = resize(IMAGES, 28, "antialias").astype(int)
    for image, resized in zip(IMAGES, ours, strict=True):
        gray = Image.fromarray(image[0])
        theirs = np.asarray(gray.resize((28, 28), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(resized[0] - theirs).max() <= 1


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "antialias"])
def test_turning_and_resizing_can_be_swapped(mode: str) -> None:
    """So rotation classes made from resized images are those made from the originals."""
    turned = resize(np.rot90(IMAGES, 1, (2, 3)).copy(), 28, mode)  # type: ignore[arg-type]
    later = np.rot90(resize(IMAGES, 28, mode), 1, (2, 3))  # type: ignore[arg-type]
    tolerance = 0 if mode == "nearest" else 1
    assert np.abs(turned.astype(int) - later).max() <= tolerance


def test_the_same_size_is_untouched() -> None:
    assert resize(IMAGES, 105, "antialias") is IMAGES
