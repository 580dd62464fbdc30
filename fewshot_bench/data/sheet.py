"""A contact sheet: what one episode looks like."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fewshot_bench.episode import Episode

# Pixels between images, around the sheet, between its parts, and above the first row.
_GAP, _MARGIN, _SPACE, _HEADING = 2, 10, 14, 20
_MIN_SIDE = 56  # smaller images are enlarged by an integer factor
_MAX_NAME = 34  # letters of a class name


def episode_sheet(
    episode: Episode, class_names: Sequence[str], pixel_range: tuple[float, float]
) -> Image.Image:
    """A row per class of a labeled task (T = 1): its name, its support images, then its queries."""
    support = _bytes(episode.support.images[0], pixel_range)
    query, target = _bytes(episode.query[0], pixel_range), episode.target[0].cpu().numpy()
    names = [class_names[i] for i in episode.class_ids[0].tolist()]
    names = [n if len(n) <= _MAX_NAME else n[: _MAX_NAME - 2] + ".." for n in names]
    way, shot = support.shape[:2]
    per_class = int(np.bincount(target, minlength=way).max())
    side = support.shape[3] * max(1, -(-_MIN_SIDE // support.shape[3]))
    font = ImageFont.load_default(13)
    left = _MARGIN + int(max(font.getlength(name) for name in (*names, ""))) + _SPACE
    middle = left + shot * (side + _GAP) + _SPACE
    width = middle + per_class * (side + _GAP) + _MARGIN
    sheet = Image.new("RGB", (width, way * (side + _GAP) + 2 * _MARGIN + _HEADING), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((left, _MARGIN), "support", "black", font)
    pen.text((middle, _MARGIN), "queries", "black", font)
    for c, name in enumerate(names):
        top = _MARGIN + _HEADING + c * (side + _GAP)
        pen.text((_MARGIN, top + side // 2 - 8), name, "black", font)
        for x, images in ((left, support[c]), (middle, query[target == c])):
            for i, image in enumerate(images):
                pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
                picture = Image.fromarray(np.ascontiguousarray(pixels))
                picture = picture.resize((side, side), Image.Resampling.BOX)  # sharp pixels
                sheet.paste(picture, (x + i * (side + _GAP), top))
    line = middle - _SPACE // 2 - 1
    pen.line([(line, _MARGIN), (line, top + side)], "gray")
    return sheet


def _bytes(images: Tensor, pixel_range: tuple[float, float]) -> npt.NDArray[np.uint8]:
    low, high = pixel_range
    scaled = (images.detach().float() - low) * (255 / (high - low))
    return scaled.round().clamp(0, 255).byte().cpu().numpy()
