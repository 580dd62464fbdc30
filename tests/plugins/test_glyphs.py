"""Glyphs: the same everywhere, and about as hard as Omniglot."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from fsb_glyphs.drawing import draw
from fsb_glyphs.glyphs import Glyphs
from fsb_glyphs.strokes import alphabet

from fewshot_bench.data.images import Splits
from fewshot_bench.data.table import ClassTable
from fewshot_bench.episode import Task
from fewshot_bench.errors import ConfigError
from fewshot_bench.sampling.base import ClosedSampler, EpisodeSource

# Changes only when somebody changes the drawing: raise glyphs.VERSION with it.
GOLDEN = "cc031142b354c223e136d05e1a3b0942baaffb85ade8ae071783d412aff964e2"


@pytest.fixture(scope="module")
def glyphs(data_cache: Path) -> Splits:
    return Glyphs().load(None, data_cache)


def small(seed: int = 0, size: int = 28) -> np.ndarray:
    return draw(alphabet(seed, "greek", 6), 4, size, seed, "greek")


def test_the_drawing_is_pinned() -> None:
    assert hashlib.sha256(small().tobytes()).hexdigest() == GOLDEN


def test_characters_do_not_depend_on_how_many_are_drawn() -> None:
    more = draw(alphabet(0, "greek", 9), 7, 28, 0, "greek").reshape(9, 7, 28, 28)
    assert np.array_equal(more[:6, :4], small().reshape(6, 4, 28, 28))
    assert not np.array_equal(small(seed=1), small())


def test_larger_images_show_the_same_drawing() -> None:
    large = torch.from_numpy(small(size=112)).float()
    shrunk = torch.nn.functional.avg_pool2d(large, 4)
    likeness = torch.corrcoef(torch.stack([shrunk.flatten(), torch.from_numpy(small()).flatten()]))
    assert likeness[0, 1] > 0.9


def test_splits(glyphs: Splits, data_cache: Path) -> None:
    assert glyphs.validation is not None
    sizes = [len(part.counts) for part in (glyphs.train, glyphs.validation, glyphs.test)]
    assert sizes == [1200, 50, 100]
    names = [
        {name.split("/")[0] for name in part.class_names}
        for part in (glyphs.train, glyphs.validation, glyphs.test)
    ]
    assert not names[0] & names[1]
    assert not names[0] & names[2]
    assert len(set(glyphs.test.families.tolist())) == 4
    assert len(np.unique(glyphs.train.groups)) == 300
    other = Glyphs(train_classes=30, validation_classes=0, train_rotations=False)
    splits = other.load(None, data_cache)
    assert splits.validation is None
    assert np.array_equal(splits.test.images, glyphs.test.images)  # whatever the others are
    assert splits.digest != glyphs.digest
    again = Glyphs(train_classes=30, validation_classes=0).load(None, data_cache / "elsewhere")
    assert again.digest == splits.digest


def test_every_image_has_ink_and_no_two_are_equal(glyphs: Splits) -> None:
    ink = glyphs.test.images.reshape(len(glyphs.test.images), -1)
    share = ink.mean(1) / 255
    assert share.min() > 0.01
    assert share.max() < 0.35
    assert len(np.unique(ink, axis=0)) == len(ink)


@pytest.mark.parametrize(("shot", "low", "high"), [(1, 0.33, 0.50), (5, 0.60, 0.80)])
def test_nearest_centroid_finds_it_as_hard_as_omniglot(
    glyphs: Splits, shot: int, low: float, high: float
) -> None:
    """On pixels, 5-way, Omniglot's evaluation characters give 36 % (1-shot) and 64 % (5-shot)."""
    source = EpisodeSource(ClosedSampler(ClassTable(glyphs.test), Task(5, shot), 0))
    episode = source.batch(range(400))
    centroid = episode.support.images.mean(2).flatten(2)
    nearest = torch.cdist(episode.query.flatten(2), centroid).argmin(-1)
    accuracy = float((nearest == episode.target).float().mean())
    assert low < accuracy < high


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_classes": 1}, "--test-classes 1"),
        ({"images_per_class": 0}, "--images-per-class 0"),
        ({"image_size": 4}, "--image-size 4"),
        ({"train_classes": 10**6}, "at most 2000000 images"),
    ],
)
def test_bad_options(options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Glyphs(**options)  # type: ignore[arg-type]


def test_verify_draws_anew(glyphs: Splits) -> None:
    assert glyphs.digest in Glyphs().verify(None)
