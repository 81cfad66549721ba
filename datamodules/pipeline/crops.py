"""Where a photo is cut, and the cutting: the geometry of ImageNet training and testing."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from datamodules.pipeline.decode import MAX_PIXELS, decode, image_size

Interpolation = Literal["bilinear", "bicubic"]


class Box(NamedTuple):
    """A rectangle in pixels."""

    top: int
    left: int
    height: int
    width: int


TRIES = 10
DRAWS = 2 * TRIES + 2
"""Random numbers that :func:`random_resized_box` uses."""


def random_resized_box(
    draws: np.ndarray,
    height: int,
    width: int,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """A rectangle of random area and aspect (Szegedy et al. 2015, section 6; torchvision's ``RandomResizedCrop``).

    The area is uniform in ``scale`` of the image's, width over height log-uniform in ``ratio``; the first of ten
    tries that fits is taken, or else the largest central rectangle with an aspect within ``ratio``.

    Args:
        draws: (DRAWS,) in [0, 1).
        height: of the image, in pixels.
        width: of the image, in pixels.
        scale: least and greatest share of the image's area.
        ratio: least and greatest width over height.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for u_area, u_ratio in draws[: 2 * TRIES].reshape(TRIES, 2).tolist():
        area = height * width * (scale[0] + (scale[1] - scale[0]) * u_area)
        aspect = math.exp(low + (high - low) * u_ratio)
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            u_top, u_left = draws[2 * TRIES :].tolist()
            return Box(int(u_top * (height - h + 1)), int(u_left * (width - w + 1)), h, w)
    w, h = width, height
    if width < ratio[0] * height:
        h = max(round(width / ratio[0]), 1)
    elif width > ratio[1] * height:
        w = max(round(height * ratio[1]), 1)
    return Box((height - h) // 2, (width - w) // 2, h, w)


def resize(image: Tensor, height: int, width: int, interpolation: Interpolation) -> Tensor:
    """Antialiased resize, uint8 (H, W, C) -> uint8 (height, width, C)."""
    if image.shape[:2] == (height, width):
        return image
    # In just these strides PyTorch takes its vectorised path for uint8, and returns the same layout.
    batch = image.contiguous()[None].permute(0, 3, 1, 2)
    return interpolate(batch, size=(height, width), mode=interpolation, antialias=True)[0].permute(1, 2, 0)


def random_resized_crop(
    data: bytes,
    name: str,
    draws: np.ndarray,
    size: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    interpolation: Interpolation,
    max_pixels: int = MAX_PIXELS,
    exact: bool = False,
) -> Tensor:
    """Decode, cut :func:`random_resized_box` and resize it: uint8 (size, size, 3).

    Unless ``exact``, a large JPEG is decoded at the smallest scale at which the rectangle still has ``size`` pixels a
    side.

    Args:
        data: an encoded image.
        name: of the file, for errors.
        draws: (DRAWS,) in [0, 1).
        size: side of the result in pixels.
        scale: see :func:`random_resized_box`.
        ratio: see :func:`random_resized_box`.
        interpolation: of the resize.
        max_pixels: see :func:`~datamodules.pipeline.decode.decode`.
        exact: decode every pixel.

    Raises:
        DecodeError: not an image, truncated or broken.
    """
    height, width = image_size(data, name, max_pixels)
    box = random_resized_box(draws, height, width, scale, ratio)
    shrink = 0.0 if exact else size / min(box.height, box.width)
    image = torch.from_numpy(decode(data, name, math.ceil(height * shrink), math.ceil(width * shrink), max_pixels))
    y, x = image.shape[0] / height, image.shape[1] / width
    top, left = round(box.top * y), round(box.left * x)
    bottom = max(round((box.top + box.height) * y), top + 1)
    right = max(round((box.left + box.width) * x), left + 1)
    return resize(image[top:bottom, left:right], size, size, interpolation)


def centre_crop(
    data: bytes,
    name: str,
    size: int,
    crop_ratio: float,
    interpolation: Interpolation,
    max_pixels: int = MAX_PIXELS,
) -> Tensor:
    """Resize the short side to ⌊size / crop_ratio⌋, as timm does, cut the central square: uint8 (size, size, 3).

    224 / 0.875 = 256 is the test geometry of the ResNet papers (one crop). The photo is decoded in full.

    Args:
        data: an encoded image.
        name: of the file, for errors.
        size: side of the result in pixels.
        crop_ratio: share of the short side that is kept, in (0, 1].
        interpolation: of the resize.
        max_pixels: see :func:`~datamodules.pipeline.decode.decode`.

    Raises:
        DecodeError: not an image, truncated or broken.
    """
    image = torch.from_numpy(decode(data, name, max_pixels=max_pixels))
    height, width, _ = image.shape
    short = min(height, width)
    if max(height, width) > 4 * short:
        # The far ends of a very long picture are cut off before it is enlarged beyond what memory holds.
        top, left = (max(height - 4 * short, 0)) // 2, (max(width - 4 * short, 0)) // 2
        image = image[top : top + 4 * short, left : left + 4 * short]
        height, width, _ = image.shape
    side = math.floor(size / crop_ratio)
    height, width = side * height // short, side * width // short
    image = resize(image, height, width, interpolation)
    top, left = round((height - size) / 2), round((width - size) / 2)
    return image[top : top + size, left : left + size]
