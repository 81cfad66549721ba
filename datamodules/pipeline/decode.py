"""Image files to uint8 arrays."""

from __future__ import annotations

import io
import warnings

import numpy as np
import simplejpeg
from PIL import Image

_JPEG = b"\xff\xd8\xff"


class DecodeError(OSError):
    """A file that is no image, or a broken one; the message names it."""


def read_bytes(path: str) -> bytes:
    """The content of a file. Raises ``OSError`` where it cannot be read."""
    with open(path, "rb") as file:
        return file.read()


def image_size(data: bytes, name: str) -> tuple[int, int]:
    """Height and width in pixels, from the header alone.

    Args:
        data: an encoded image.
        name: of the file, for the error.

    Raises:
        DecodeError: not an image.
    """
    try:
        if data.startswith(_JPEG):
            height, width, *_ = simplejpeg.decode_jpeg_header(data)
            return height, width
        width, height = _open(data).size
        return height, width
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise _broken(data, name, error) from error


def decode(data: bytes, name: str, min_height: int = 0, min_width: int = 0) -> np.ndarray:
    """Decode an image to RGB, whatever its name says it is.

    JPEG is decoded by libjpeg-turbo, which can compute a large photo at k/8 of its size for a fraction of the cost;
    everything else by Pillow. Grey, palette and 16-bit images become 8-bit RGB, transparency is
    dropped, an animation gives its first frame. An EXIF orientation is not applied, as in torchvision.

    Args:
        data: an encoded image.
        name: of the file, for the error.
        min_height: if positive, a JPEG may be decoded at half its size or less, but no lower than this.
        min_width: the same.

    Returns:
        uint8 (H, W, 3).

    Raises:
        DecodeError: not an image, truncated or broken.
    """
    try:
        if data.startswith(_JPEG) and simplejpeg.decode_jpeg_header(data)[2] not in ("CMYK", "YCCK"):
            factor = 2 if min_height > 0 else 1  # between 1/2 and 1 libjpeg-turbo is slower, not faster
            return simplejpeg.decode_jpeg(data, "RGB", min_height=min_height, min_width=min_width, min_factor=factor)
        return _decode_other(_open(data))
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise _broken(data, name, error) from error


def _open(data: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(data))


def _decode_other(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):
        # 16 bits: Pillow would cut off at 255.
        grey = (np.asarray(image, dtype=np.float64) / 257).round().clip(0, 255)
        image = Image.fromarray(grey.astype(np.uint8))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Palette images with Transparency", UserWarning)
        return np.array(image.convert("RGB"))


def _broken(data: bytes, name: str, error: Exception) -> DecodeError:
    if not data:
        return DecodeError(f"{name} is empty; replace or remove it.")
    # Pillow's message for an unknown format names its own buffer.
    reason = "its format is unknown" if "cannot identify" in str(error) else str(error).strip().rstrip(".")
    return DecodeError(f"{name} is not a whole image: {reason}; replace or remove it.")
