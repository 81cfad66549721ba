"""Image files to uint8 arrays."""

from __future__ import annotations

import io
import warnings

import numpy as np
import simplejpeg
from PIL import ExifTags, Image

MAX_PIXELS = 150_000_000
"""Default limit on the pixels of an image; at 3 bytes each, as much memory as a decoder may need."""

_JPEG, _SCAN, _EXIF = b"\xff\xd8\xff", b"\xff\xda", b"Exif\0\0"
_EXIF_SEARCHED = 1 << 16  # bytes; the segment comes first in a JPEG file, and is no longer than that


class DecodeError(OSError):
    """A file that is not an image, or a broken one; the message names it."""


def read_bytes(path: str) -> bytes:
    """The content of a file. Raises ``OSError`` if it cannot be read."""
    with open(path, "rb") as file:
        return file.read()


def image_size(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Height and width in pixels of the image as it is shown, from the header alone.

    Args:
        data: an encoded image.
        name: of the file, for the error.
        max_pixels: limit on height times width.

    Raises:
        DecodeError: not an image, or a larger one.
    """
    try:
        height, width, _ = _header(data, max_pixels)
        return (width, height) if exif_orientation(data) >= 5 else (height, width)
    except Exception as error:  # decoders raise what they like
        raise _broken(data, name, error) from error


def decode(data: bytes, name: str, min_height: int = 0, min_width: int = 0, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode an image to RGB, whatever its name says it is.

    JPEG is decoded by libjpeg-turbo, which can compute a large photo at k/8 of its size for a fraction of the cost;
    everything else, and a JPEG that libjpeg-turbo objects to, by Pillow. Grey, palette and 16-bit images become 8-bit
    RGB, transparency is dropped, an animation gives its first frame. The image is turned as its EXIF orientation says.

    Args:
        data: an encoded image.
        name: of the file, for the error.
        min_height: if positive, a JPEG may be decoded at half its size or less, but no lower than this.
        min_width: the least width in that case.
        max_pixels: limit on height times width.

    Returns:
        uint8 (H, W, 3).

    Raises:
        DecodeError: not an image, truncated or broken, larger than ``max_pixels``, or with pixels that 8 bits cannot
            represent.
    """
    try:
        _, _, space = _header(data, max_pixels)
        orientation = exif_orientation(data)
        if orientation >= 5:
            min_height, min_width = min_width, min_height
        if space is None or space in ("CMYK", "YCCK"):
            return _turned(_with_pillow(data), orientation)
        factor = 2 if min_height > 0 else 1  # between 1/2 and 1 libjpeg-turbo is slower, not faster
        try:
            image = simplejpeg.decode_jpeg(data, "RGB", min_height=min_height, min_width=min_width, min_factor=factor)
        except ValueError as error:
            if "Premature end" in str(error):
                raise
            image = _with_pillow(data)  # which passes over stray bytes and the like, as viewers do
        return _turned(image, orientation)
    except Exception as error:  # decoders raise what they like
        raise _broken(data, name, error) from error


def _header(data: bytes, max_pixels: int) -> tuple[int, int, str | None]:
    """Height, width, and the colour space of a JPEG that libjpeg-turbo can read."""
    space = None
    if data.startswith(_JPEG):
        try:
            height, width, space, *_ = simplejpeg.decode_jpeg_header(data)
        except ValueError:
            width, height = _open(data).size
    else:
        width, height = _open(data).size
    if height * width > max_pixels:
        raise ValueError(f"it claims {width}×{height} pixels, more than max_pixels={max_pixels}")
    return height, width, space


def exif_orientation(data: bytes) -> int:
    """1 to 8, as in EXIF: how the stored image is to be turned to be shown."""
    if data.startswith(_JPEG) and not _has_exif(data):
        return 1
    image = _open(data)
    if image.format == "TIFF":  # which Pillow turns itself
        return 1
    if image.format == "PNG" and b"eXIf" not in data:  # Pillow would decode all of it to look
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # viewers show an image with broken EXIF data as it is stored
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _has_exif(data: bytes) -> bool:
    """Whether a JPEG has EXIF data, going from segment to segment: searching would read much of the picture itself."""
    at = 2
    while data.startswith(b"\xff", at):
        if data.startswith(_SCAN, at):
            return False
        if data.startswith(_EXIF, at + 4):
            return True
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data.find(_EXIF, 0, _EXIF_SEARCHED) >= 0  # decoders read on behind a broken segment


def _turned(image: np.ndarray, orientation: int) -> np.ndarray:
    if orientation == 1:
        return image
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def _open(data: bytes) -> Image.Image:
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None  # the limit is max_pixels, for all decoders
    try:
        return Image.open(io.BytesIO(data))
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _with_pillow(data: bytes) -> np.ndarray:
    image = _open(data)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose range is not known; convert it to 8 bits")
    if image.mode.startswith("I"):
        # 16 bits: Pillow would cut off at 255.
        grey = np.asarray(image, dtype=np.float64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError("its pixels do not fit into 16 bits; convert it to 8 bits")
        image = Image.fromarray((grey / 257).round().astype(np.uint8))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Palette images with Transparency", UserWarning)
        return np.array(image.convert("RGB"))


def _broken(data: bytes, name: str, error: Exception) -> DecodeError:
    if not data:
        return DecodeError(f"{name} is empty; replace or remove it.")
    # Pillow's message for an unknown format names its own buffer.
    reason = str(error).strip().rstrip(".") or type(error).__name__
    if "cannot identify" in reason:
        reason = "its format is unknown"
    return DecodeError(f"{name} is not a whole image: {reason}; replace or remove it.")
