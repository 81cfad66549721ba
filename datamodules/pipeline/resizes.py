"""Resizing, mirroring and cutting photos together with their boxes or masks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from datamodules.pipeline.crops import Box, resize
from datamodules.pipeline.decode import MAX_PIXELS, decode, exif_orientation, image_size

DETECTION_DRAWS = 2
"""Random numbers of an image with boxes: its scale, and whether it is mirrored."""
SEGMENTATION_DRAWS = 4
"""Random numbers of an image with a mask: scale, mirror, and the two sides of the crop."""


def fit(height: int, width: int, short: int, long: int) -> tuple[int, int]:
    """Height and width at which the short side is ``short``, or the long one ``long`` if it would be longer."""
    scale = min(short / min(height, width), long / max(height, width))
    return max(round(height * scale), 1), max(round(width * scale), 1)


def check_size(data: bytes, name: str, size: tuple[int, int], max_pixels: int = MAX_PIXELS) -> None:
    """Raise unless the image lies as its annotation has it.

    Args:
        data: an encoded image.
        name: of the file, for errors.
        size: height and width in the annotation.
        max_pixels: see :func:`~datamodules.pipeline.decode.decode`.

    Raises:
        MisconfigurationException: it has another size, or is turned by its EXIF data.
        DecodeError: not an image.
    """
    height, width = image_size(data, name, max_pixels)
    check_upright(data, name)
    if (height, width) != size:
        raise MisconfigurationException(
            f"{name} has {width}×{height} pixels, but its annotation says {size[1]}×{size[0]}; correct one of the two."
        )


def check_upright(data: bytes, name: str) -> None:
    """Raise if EXIF data say that a photo is turned: some tools annotate it as it is stored, others as it is shown."""
    if exif_orientation(data) != 1:
        raise MisconfigurationException(
            f"{name} is turned by its EXIF data, so where its objects lie is not known; save it upright, without EXIF"
            " data, and check its annotation."
        )


def resized_photo(data: bytes, name: str, height: int, width: int, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Decode no finer than needed and resize with antialiasing: uint8 (height, width, 3)."""
    return resize(torch.from_numpy(decode(data, name, height, width, max_pixels)), height, width, "bilinear")


def photo_with_boxes(
    data: bytes,
    name: str,
    size: tuple[int, int],
    boxes: Tensor,
    shorts: Sequence[int],
    long: int,
    draws: np.ndarray | None = None,
    flip: bool = True,
    max_pixels: int = MAX_PIXELS,
) -> tuple[Tensor, Tensor, bool]:
    """Resize a photo and its boxes, and mirror half of them.

    Args:
        data: an encoded image.
        name: of the file, for errors.
        size: height and width in the annotation.
        boxes: float32 (B, 4), x1 y1 x2 y2 in pixels.
        shorts: lengths of the short side to choose from; the last one is taken without draws.
        long: limit on the long side.
        draws: (DETECTION_DRAWS,) in [0, 1); none in evaluation.
        flip: mirror where the draw is below one half.
        max_pixels: see :func:`~datamodules.pipeline.decode.decode`.

    Returns:
        uint8 (H, W, 3), float32 (B, 4), and whether they are mirrored.

    Raises:
        MisconfigurationException: see :func:`check_size`.
        DecodeError: not an image, truncated or broken.
    """
    check_size(data, name, size, max_pixels)
    short = shorts[-1] if draws is None else shorts[int(draws[0] * len(shorts))]
    height, width = fit(*size, short, long)
    image = resized_photo(data, name, height, width, max_pixels)
    boxes = boxes * boxes.new_tensor([width / size[1], height / size[0]] * 2)
    mirrored = flip and draws is not None and bool(draws[1] < 0.5)
    return (image.flip(1), flipped_boxes(boxes, width), True) if mirrored else (image, boxes, False)


def flipped_boxes(boxes: Tensor, width: int) -> Tensor:
    """Boxes (B, 4) of the mirrored image."""
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack((width - x2, y1, width - x1, y2), 1)


def random_window(
    draws: np.ndarray, height: int, width: int, long: int, scales: tuple[float, float], crop: tuple[int, int]
) -> tuple[Box, tuple[int, int]]:
    """The rectangle of the image that is cut out, and the size it is resized to.

    As if the long side were resized to ``long`` times a factor that is uniform in ``scales``, the image padded where it
    is smaller than ``crop``, and a crop of this size taken at random.

    Args:
        draws: (SEGMENTATION_DRAWS,) in [0, 1).
        height: of the image.
        width: of the image.
        long: length of the long side at factor 1.
        scales: least and greatest factor.
        crop: height and width.
    """
    scale = long * (scales[0] + (scales[1] - scales[0]) * draws[0]) / max(height, width)
    resized = max(round(height * scale), 1), max(round(width * scale), 1)
    edges, sizes = [], []
    for side, full, limit, draw in zip((height, width), resized, crop, draws[2:], strict=True):
        length = min(full, limit)
        start = int(draw * (full - length + 1))
        begin, end = math.floor(start * side / full), math.ceil((start + length) * side / full)
        edges.append((begin, min(end, side) - begin))
        sizes.append(length)
    (top, rows), (left, columns) = edges
    return Box(top, left, rows, columns), (sizes[0], sizes[1])


def cut(
    image: np.ndarray, mask: np.ndarray, box: Box, size: tuple[int, int], flip: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a rectangle out of an image and its mask, resize and maybe mirror both: uint8 (h, w, 3) and uint8 (h, w).

    The image is resized with antialiasing, the mask by its nearest pixels: both line up at the centres of pixels.

    Args:
        image: uint8 (H, W, 3).
        mask: uint8 (H, W).
        box: in pixels of both.
        size: height and width of the results.
        flip: mirror them.
    """
    rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
    part = resize(torch.from_numpy(image[rows, columns]), *size, "bilinear").numpy()
    y, x = (nearest(length, n) for length, n in zip((box.height, box.width), size, strict=True))
    labels = mask[box.top + y][:, box.left + (x[::-1] if flip else x)]
    return part[:, ::-1] if flip else part, labels


def nearest(length: int, new: int) -> np.ndarray:
    """The pixel of a line that each pixel of the resized line takes, by the centre of the latter: int64 (new,)."""
    return ((np.arange(new) * 2 + 1) * length) // (2 * new)
