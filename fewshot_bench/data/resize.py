"""Resizing images held as bytes.

Few-shot papers differ here without saying so. Omniglot's files are 1-bit, and Pillow resizes mode
``"1"`` by nearest neighbor whatever filter is asked for: the published results come from binary
``nearest`` images. TensorFlow's default is ``bilinear`` from the four pixels around a point,
without anti-aliasing. ``antialias`` weighs all pixels that an output pixel covers.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

Resize = Literal["nearest", "bilinear", "antialias"]
_CHUNK = 1024  # images resized at once: keeps the float copies small


def resize(
    images: npt.NDArray[np.uint8], size: int | tuple[int, int], mode: Resize = "antialias"
) -> npt.NDArray[np.uint8]:
    """Images [M, C, H, W] as [M, C, height, width]; pixel centers are at half-integers.

    Arguments:
        images: of any shape; what has other proportions is squashed.
        size: (height, width), or the side of a square.
        mode: how.
    """
    new = (size, size) if isinstance(size, int) else size
    height, width = images.shape[2:]
    if (height, width) == new:
        return images
    if mode == "nearest":
        rows, columns = _nearest(height, new[0]), _nearest(width, new[1])
        return np.ascontiguousarray(images[:, :, rows][:, :, :, columns])
    out = np.empty((*images.shape[:2], *new), np.uint8)
    for start in range(0, len(images), _CHUNK):
        chunk = np.array(images[start : start + _CHUNK])  # a copy: torch wants to own its bytes
        out[start : start + _CHUNK] = _smooth(torch.from_numpy(chunk), new, mode).numpy()
    return out


def _nearest(source: int, size: int) -> npt.NDArray[np.int64]:
    """The source index of each output index, as Pillow's NEAREST has it."""
    # In integers, since (2 i + 1) source / (2 size) is exact in them.
    return (2 * np.arange(size, dtype=np.int64) + 1) * source // (2 * size)


def _smooth(images: torch.Tensor, size: tuple[int, int], mode: Resize) -> torch.Tensor:
    if mode == "bilinear":
        new = torch.nn.functional.interpolate(images.float(), size, mode="bilinear")
        return new.round_().clamp_(0, 255).to(torch.uint8)
    # Imported here, since it takes seconds and few runs need it.
    from torchvision.transforms.v2 import functional

    return functional.resize(images, list(size), antialias=True)
