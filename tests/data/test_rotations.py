"""Quarter turns as classes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fewshot_bench.data.images import LabeledImages
from fewshot_bench.data.transforms import with_rotations
from fewshot_bench.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 2, 6, 6), dtype=np.uint8)
LABELED = LabeledImages(
    IMAGES, np.array([2, 3]), ("a", "b"), families=np.array([4, 7]), family_names=("x",) * 8
)


def test_each_class_becomes_four() -> None:
    turned = with_rotations(LABELED)
    assert turned.class_names[:5] == ("a/rot000", "a/rot090", "a/rot180", "a/rot270", "b/rot000")
    assert turned.counts.tolist() == [2] * 4 + [3] * 4
    assert turned.groups.tolist() == [0] * 4 + [1] * 4
    assert turned.families.tolist() == [4] * 4 + [7] * 4
    assert with_rotations(LABELED, separate_groups=True).groups.tolist() == list(range(8))


def test_turns_are_pillows_counter_clockwise_ones() -> None:
    turned = with_rotations(LABELED)
    starts = np.cumsum(turned.counts) - turned.counts
    first = {0: 0, 1: 2}  # the first image of class a and of class b
    for c in range(8):
        own = Image.fromarray(IMAGES[first[c // 4], 1])
        expected = np.asarray(own.rotate(90 * (c % 4)))
        assert np.array_equal(turned.images[starts[c], 1], expected)


def test_only_square_images_turn() -> None:
    flat = LabeledImages(np.zeros((1, 1, 2, 3), np.uint8), np.array([1]), ("a",))
    with pytest.raises(DataError, match="2 x 3"):
        with_rotations(flat)
