"""Drawing a character by hand, again and again: noisy copies of a stroke program as images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fewshot_bench.rng import fold, key_of, uniform
from fsb_glyphs.strokes import STROKES, Programs, centered, on_curve

CANVAS = 1024  # units; coordinates are whole numbers of them
DENSITY = 40  # points drawn per curve
PEN = (15.0, 26.0)  # radius in units
EDGE = 0.7  # pixels over which ink fades
_CHUNK = 256  # images rendered at once


def draw(
    programs: Programs, per_class: int, size: int, seed: int, name: str
) -> npt.NDArray[np.uint8]:
    """Images [characters * per_class, 1, size, size], ink 255; sorted by character.

    Each drawing has its own affine map (slant, size, proportions, place), noise at every control
    point and stroke, and pen width. The i-th drawing does not depend on ``per_class``.
    """
    characters = len(programs.strokes)
    key = fold(
        fold(torch.tensor(key_of("glyphs drawing", seed, name)), torch.arange(characters))[:, None],
        torch.arange(per_class),
    ).flatten()
    control = programs.control.repeat_interleave(per_class, dim=0)
    strokes = programs.strokes.repeat_interleave(per_class)
    images = [
        _render(
            *_drawn(control[i : i + _CHUNK], key[i : i + _CHUNK]), strokes[i : i + _CHUNK], size
        )
        for i in range(0, len(key), _CHUNK)
    ]
    return torch.cat(images).unsqueeze(1).numpy()


def _drawn(control: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Ink points in canvas units [B, STROKES, P, 2], integers; and pen radius [B]."""
    noisy = control + 0.05 * centered(key, "points", tuple(control.shape[1:]))
    noisy = noisy + 0.04 * centered(key, "strokes", (STROKES, 1, 2))
    matrix = torch.eye(2, dtype=torch.float64) + 0.13 * centered(key, "affine", (2, 2))
    shift = 0.5 + 0.055 * centered(key, "shift", (1, 1, 2))
    spot = on_curve(noisy - 0.5, DENSITY)
    moved = (spot.unsqueeze(-2) * matrix[:, None, None]).sum(-1) * 0.66 + shift
    radius = PEN[0] + (PEN[1] - PEN[0]) * uniform(key, "pen", (), torch.float64)
    return (moved * CANVAS).round().clamp(0, CANVAS - 1).long(), radius


def _render(points: Tensor, radius: Tensor, strokes: Tensor, size: int) -> Tensor:
    """Ink by the distance to the nearest point: uint8 [B, size, size].

    Squared distances are integers, and a point is compared with the pixels around it only.
    """
    images = len(points)
    unused = torch.arange(STROKES) >= strokes.unsqueeze(1)
    spots = torch.where(unused[:, :, None, None], points[:, :1], points).flatten(1, 2)
    reach = int(PEN[1] * size / CANVAS + EDGE / 2 + 0.5)
    steps = torch.arange(-reach, reach + 1)
    # The frame is wider than the image by ``reach``, so that no neighbor falls outside.
    width = size + 2 * reach
    cell = (spots * size // CANVAS).unsqueeze(-1) + steps  # [B, P, 2, window]
    center = (2 * cell + 1) * CANVAS // (2 * size)
    gap = (center - spots.unsqueeze(-1)).square()
    squared = gap[:, :, 1, :, None] + gap[:, :, 0, None, :]
    place = (cell[:, :, 1, :, None] + reach) * width + cell[:, :, 0, None, :] + reach
    # One flat scatter: torch's own parallel one over rows was measured 7 times slower.
    place = place.flatten(1) + torch.arange(images).unsqueeze(1) * width**2
    nearest = torch.full((images * width**2,), CANVAS**2)
    nearest.scatter_reduce_(0, place.flatten(), squared.flatten(), "amin")
    frame = nearest.view(images, width, width)[:, reach : reach + size, reach : reach + size]
    softness = EDGE * CANVAS / size
    ink = (radius[:, None, None] - frame.double().sqrt()) / softness + 0.5
    return (ink.clamp(0, 1) * 255).round().to(torch.uint8)
