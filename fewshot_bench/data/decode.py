"""PNG and JPEG files as arrays of bytes."""

import io
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from fewshot_bench.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
# Far more than image data sets have, far less than fills the memory.
MAX_IMAGE_BYTES = 64 * 2**20
MAX_PIXELS = 50_000_000


def read_image(path: Path) -> bytes:
    """The bytes of an image file; DataError if it cannot be read, or is too large."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_IMAGE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read '{path}' ({reason}).") from error
    if len(data) > MAX_IMAGE_BYTES:
        raise DataError(f"'{path}' has more than {MAX_IMAGE_BYTES} bytes; refused.")
    return data


def decode_image(data: bytes, name: str, mode: str) -> npt.NDArray[np.uint8]:
    """An image [C, H, W]; mode ``"1"`` gives 0 and 1, ``"L"`` and ``"RGB"`` 0..255.

    Arguments:
        data: the content of a PNG or JPEG file with this ``name``.
        mode: Pillow's name of the pixel format to convert to.

    Raises:
        DataError: no image, damaged, or too large.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"'{name}' has {image.width} x {image.height} pixels; refused.")
            picture: Image.Image = image
            if "transparency" in image.info:  # such a palette cannot be converted directly
                picture = image.convert("RGBA")
            pixels = np.asarray(picture.convert(mode), dtype=np.uint8)
    except UnidentifiedImageError:
        raise DataError(f"'{name}' is not a PNG or JPEG image.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"'{name}' has over {MAX_PIXELS} pixels; refused.") from None
    except (OSError, SyntaxError, ValueError, zlib.error) as error:
        raise DataError(f"'{name}' is a damaged image ({error}).") from error
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
