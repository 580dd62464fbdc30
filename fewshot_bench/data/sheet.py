"""A contact sheet: what one episode looks like."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fewshot_bench.episode import Episode

_GAP, _MARGIN, _WIDE = 2, 10, 14  # pixels between images, around all, between the parts
_LEAST = 56  # images smaller than this are enlarged by a whole factor
_LETTERS = 34  # of a class name


def episode_sheet(
    episode: Episode, class_names: Sequence[str], pixel_range: tuple[float, float]
) -> Image.Image:
    """One row per class: its name, its support images, then its queries.

    Arguments:
        episode: of one task (T = 1), labeled.
        class_names: of all classes of the split; ``episode.class_ids`` points into it.
        pixel_range: values that stand for byte 0 and byte 255.
    """
    support = _bytes(episode.support.images[0], pixel_range)
    query, target = _bytes(episode.query[0], pixel_range), episode.target[0].cpu().numpy()
    names = [_short(class_names[i]) for i in episode.class_ids[0].tolist()]
    way, shot = support.shape[:2]
    per_class = int(np.bincount(target, minlength=way).max())
    side = support.shape[3] * max(1, -(-_LEAST // support.shape[3]))
    font = ImageFont.load_default(13)
    left = _MARGIN + int(max(font.getlength(name) for name in (*names, ""))) + _WIDE
    middle = left + shot * (side + _GAP) + _WIDE
    width = middle + per_class * (side + _GAP) + _MARGIN
    sheet = Image.new("RGB", (width, way * (side + _GAP) + 2 * _MARGIN + 20), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((left, _MARGIN), "support", "black", font)
    pen.text((middle, _MARGIN), "queries", "black", font)
    for c, name in enumerate(names):
        top = _MARGIN + 20 + c * (side + _GAP)
        pen.text((_MARGIN, top + side // 2 - 8), name, "black", font)
        for x, images in ((left, support[c]), (middle, query[target == c])):
            for i, image in enumerate(images):
                sheet.paste(_picture(image, side), (x + i * (side + _GAP), top))
    pen.line([(middle - _WIDE // 2 - 1, _MARGIN), (middle - _WIDE // 2 - 1, top + side)], "gray")
    return sheet


def _bytes(images: Tensor, pixel_range: tuple[float, float]) -> npt.NDArray[np.uint8]:
    low, high = pixel_range
    scaled = (images.detach().float() - low) * (255 / (high - low))
    return scaled.round().clamp(0, 255).byte().cpu().numpy()


def _picture(image: npt.NDArray[np.uint8], side: int) -> Image.Image:
    """An image [C, H, W] at its size on the sheet, pixels kept sharp."""
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(pixels)).resize((side, side), Image.Resampling.BOX)


def _short(name: str) -> str:
    return name if len(name) <= _LETTERS else name[: _LETTERS - 2] + ".."
