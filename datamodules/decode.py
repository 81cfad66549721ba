"""Image files to uint8 arrays."""

from __future__ import annotations

import io
import warnings

import numpy as np
import simplejpeg
from PIL import Image


class DecodeError(OSError):
    """A file that is no image, or a broken one; the message starts with its path."""


def decode(path: str, min_side: int = 0) -> np.ndarray:
    """Decode an image to RGB, whatever its name says it is.

    JPEG is decoded by libjpeg-turbo, which for a large photo can compute a picture of k/8 of its size at a
    fraction of the cost; everything else by Pillow: grey, palette and 16-bit images become 8-bit RGB,
    transparency is dropped, an animation gives its first frame. An EXIF orientation is not applied, as in
    torchvision.

    Args:
        path: the file.
        min_side: if positive, a JPEG may be decoded at a smaller scale whose sides are at least this many
            pixels.

    Returns:
        uint8 (H, W, 3).

    Raises:
        DecodeError: not an image, truncated or broken.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read()
    try:
        if data[:3] == b"\xff\xd8\xff" and simplejpeg.decode_jpeg_header(data)[2] != "CMYK":
            return simplejpeg.decode_jpeg(data, "RGB", min_height=min_side, min_width=min_side)
        return _decode_other(data)
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DecodeError(f"{path} is not a whole image: {error}. Replace or remove it.") from error


def _decode_other(data: bytes) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image: Image.Image = Image.open(io.BytesIO(data))
        if image.mode.startswith("I") or image.mode == "F":
            # Pillow would cut 16 bits off at 255.
            grey = np.asarray(image, dtype=np.float64) / (257 if image.mode.startswith("I") else 1)
            image = Image.fromarray(grey.clip(0, 255).round().astype(np.uint8))
        return np.array(image.convert("RGB"))
