"""Resizing images, and their rotations as new classes."""

from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from fewshot_bench.data.images import LabeledImages
from fewshot_bench.errors import DataError

Resize = Literal["nearest", "bilinear", "antialias"]
ROTATIONS = ("rot000", "rot090", "rot180", "rot270")
_CHUNK = 1024  # images resized at once, so that the float copies are small


def resize(
    images: npt.NDArray[np.uint8], size: int | tuple[int, int], mode: Resize = "antialias"
) -> npt.NDArray[np.uint8]:
    """Images [M, C, H, W] as [M, C, height, width]; pixel centers are at half-integers.

    Few-shot papers differ here without saying so. Omniglot's files are 1-bit, and Pillow resizes
    mode ``"1"`` by nearest neighbor whatever filter is given: the published results use binary
    ``nearest`` images. TensorFlow's default is ``bilinear`` from the four surrounding pixels,
    without anti-aliasing. ``antialias`` weighs all pixels that an output pixel covers.

    ``size``: (height, width), or the side of a square. The aspect ratio is not preserved.
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
        # A copy: torch needs a writable array.
        chunk = torch.from_numpy(np.array(images[start : start + _CHUNK]))
        if mode == "bilinear":
            chunk = torch.nn.functional.interpolate(chunk.float(), new, mode="bilinear")
            chunk = chunk.round_().clamp_(0, 255).to(torch.uint8)
        else:
            # Imported here, since it takes seconds and few runs need it.
            from torchvision.transforms.v2 import functional

            chunk = functional.resize(chunk, list(new), antialias=True)
        out[start : start + _CHUNK] = chunk.numpy()
    return out


def _nearest(source: int, size: int) -> npt.NDArray[np.int64]:
    """The source index of each output index, as in Pillow's NEAREST."""
    # In integers, where (2 i + 1) source / (2 size) is exact.
    return (2 * np.arange(size, dtype=np.int64) + 1) * source // (2 * size)


def with_rotations(labeled: LabeledImages, *, separate_groups: bool = False) -> LabeledImages:
    """Each class becomes four, rotated by quarter turns (Santoro et al., 2016).

    They are named ``name/rot000`` .. ``name/rot270`` (counter-clockwise), neighbors, and in their
    class's group, so that two rotations of a character are never in one episode; with
    ``separate_groups`` they can be. DataError if the images are not square.
    """
    height, width = labeled.images.shape[2:]
    if height != width:
        raise DataError(f"rotation classes need square images, got {height} x {width}.")
    images = np.empty((4 * len(labeled.images), *labeled.images.shape[1:]), np.uint8)
    order = np.empty(len(images), np.int64)
    start = 0
    for count in labeled.counts.tolist():
        own = slice(start, start + count)
        for turn in range(4):
            new = slice(4 * start + turn * count, 4 * start + (turn + 1) * count)
            images[new] = np.rot90(labeled.images[own], turn, axes=(2, 3))
            order[new] = labeled.order[own]
        start += count
    each = {name: getattr(labeled, name).repeat(4) for name in ("counts", "groups", "families")}
    if separate_groups:
        each["groups"] = np.arange(4 * len(labeled.counts))
    names = tuple(f"{name}/{turn}" for name in labeled.class_names for turn in ROTATIONS)
    return replace(labeled, images=images, class_names=names, order=order, **each)
