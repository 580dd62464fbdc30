"""Quarter turns as new classes (Santoro et al., 2016), as is usual on Omniglot."""

from __future__ import annotations

import numpy as np

from fewshot_bench.data.images import LabeledImages
from fewshot_bench.errors import DataError

TURNS = ("rot000", "rot090", "rot180", "rot270")


def with_rotations(labeled: LabeledImages, *, twins_meet: bool = False) -> LabeledImages:
    """Each class becomes four: ``name/rot000`` .. ``name/rot270``, turned counter-clockwise.

    The four are neighbors and share their class's group, so that two rotations of one character
    never share an episode; with ``twins_meet`` each gets a group of its own.

    Raises:
        DataError: the images are not square.
    """
    height, width = labeled.images.shape[2:]
    if height != width:
        raise DataError(f"rotation classes need square images, not {height} x {width}")
    out = np.empty((4 * len(labeled.images), *labeled.images.shape[1:]), np.uint8)
    order = np.empty(len(out), np.int64)
    start = 0
    for count in labeled.counts.tolist():
        own = labeled.images[start : start + count]
        for turn in range(4):
            at = 4 * start + turn * count
            out[at : at + count] = np.rot90(own, turn, axes=(2, 3))
            order[at : at + count] = labeled.order[start : start + count]
        start += count
    classes = len(labeled.counts)
    return LabeledImages(
        images=out,
        counts=np.repeat(labeled.counts, 4),
        class_names=tuple(f"{name}/{turn}" for name in labeled.class_names for turn in TURNS),
        groups=np.arange(4 * classes) if twins_meet else np.repeat(labeled.groups, 4),
        families=np.repeat(labeled.families, 4),
        family_names=labeled.family_names,
        order=order,
    )
