"""Normalise a batch of images and erase parts of them at once, on whatever device it is. Images are (N, H, W, C)."""

from __future__ import annotations

import functools
import math
from typing import Literal

import torch
from torch import Tensor

from datamodules.pipeline.randomness import normals


def integers(uniform: Tensor, count: int) -> Tensor:
    """Uniform numbers in [0, 1) -> int64 in [0, count)."""
    return (uniform * count).long().clamp_(max=count - 1)


def cutout(uniform: Tensor, height: int, width: int, side: int) -> Tensor:
    """A square per image, its centre anywhere in the image, so that it may reach beyond it (DeVries and
    Taylor 2017).

    Args:
        uniform: (N, 2) in [0, 1).

    Returns:
        Top, bottom, left, right (bottom and right excluded), int64 (N, 4).
    """
    top = integers(uniform[:, 0], height) - side // 2
    left = integers(uniform[:, 1], width) - side // 2
    return torch.stack((top, top + side, left, left + side), 1)


ERASING_TRIES = 10
ERASING_DRAWS = 4 + 2 * ERASING_TRIES
Erasing = Literal["const", "pixel"]
"""What an erased rectangle is filled with, under timm's names: the mean colour, or normal noise in each pixel."""


def erase(images: Tensor, uniform: Tensor, probability: float, mode: Erasing) -> None:
    """Fill the rectangles of :func:`random_erasing`; in place.

    Args:
        images: float (N, H, W, C), contiguous, normalised.
        uniform: (N, ERASING_DRAWS) in [0, 1); the noise is a function of the last one.
        probability: that an image is erased in part.
        mode: see :data:`Erasing`.
    """
    _, height, width, _ = images.shape
    box = random_erasing(uniform, height, width, probability)
    blank_box(images, box)
    if mode == "pixel":
        lines = as_lines(images)
        lines.add_(normals(uniform[:, -1], lines[0].numel()).view(lines.shape).mul_(_inside(images, box)))


def random_erasing(uniform: Tensor, height: int, width: int, probability: float) -> Tensor:
    """A rectangle per image with the given probability (Zhong et al. 2017, algorithm 1; torchvision's
    numbers).

    Its area is uniform in 0.02 to 0.33 of the image's and its height over width log-uniform in 0.3 to 3.3; the
    first of ten tries that is smaller than the image is taken, and no rectangle where none is.

    Args:
        uniform: (N, ERASING_DRAWS) in [0, 1).

    Returns:
        Top, bottom, left, right (bottom and right excluded; all 0 where nothing is erased), int64 (N, 4).
    """
    area = height * width * (0.02 + (0.33 - 0.02) * uniform[:, 3 : 3 + ERASING_TRIES])
    least, most = math.log(0.3), math.log(3.3)
    aspect = (least + (most - least) * uniform[:, 3 + ERASING_TRIES : 3 + 2 * ERASING_TRIES]).exp()
    h, w = (area * aspect).sqrt().round().long(), (area / aspect).sqrt().round().long()
    fits = (h < height) & (w < width)
    first = fits.int().argmax(1, keepdim=True)
    erase = (fits.any(1) & (uniform[:, 0] < probability)).long()
    h, w = h.gather(1, first)[:, 0] * erase, w.gather(1, first)[:, 0] * erase
    top = (uniform[:, 1] * (height - h + 1)).long() * erase
    left = (uniform[:, 2] * (width - w + 1)).long() * erase
    return torch.stack((top, top + h, left, left + w), 1)


def blank_padding(images: Tensor, rows: Tensor, columns: Tensor) -> None:
    """Set to 0, the mean colour, what is beyond the image; in place.

    Args:
        images: float (N, H, W, C), contiguous, normalised.
        rows: whether a line is of the image, bool (N, H).
        columns: whether a column is, bool (N, W).
    """
    keep_columns = columns.to(images.dtype).repeat_interleave(images.shape[3], 1)
    as_lines(images).mul_(rows.to(images.dtype)[:, :, None]).mul_(keep_columns[:, None, :])


def blank_box(images: Tensor, box: Tensor) -> None:
    """Set the pixels of a box to 0, the mean colour; in place.

    Args:
        images: float (N, H, W, C), contiguous, normalised.
        box: int64 (N, 4): top, bottom, left, right.
    """
    as_lines(images).mul_(1 - _inside(images, box))


def _inside(images: Tensor, box: Tensor) -> Tensor:
    """1 for the values of ``images`` in the box, 0 for the others: (N, H, W·C)."""
    _, height, width, channels = images.shape
    y, x = torch.arange(height, device=box.device), torch.arange(width, device=box.device)
    rows = ((y >= box[:, :1]) & (y < box[:, 1:2])).to(images.dtype)
    columns = ((x >= box[:, 2:3]) & (x < box[:, 3:])).to(images.dtype).repeat_interleave(channels, 1)
    return rows[:, :, None] * columns[:, None, :]


def as_lines(images: Tensor) -> Tensor:
    """(N, H, W, C) -> (N, H, W·C): a broadcast over one to three channels alone would not vectorise."""
    return images.view(*images.shape[:2], images.shape[2:].numel())


@functools.cache
def affine(mean: tuple[float, ...], std: tuple[float, ...], width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """What the values of a line of pixels are multiplied with to normalise them, and what is added: float32 (W·C,)."""
    # Kept on the device from the first batch on; autograd could not use what inference mode made.
    with torch.inference_mode(False):
        m, s = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
        scale, shift = 1 / (255 * s), -m / s
        return scale.float().repeat(width).to(device), shift.float().repeat(width).to(device)


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Values in [0, 255] -> (x / 255 - mean) / std.

    Args:
        images: uint8 or float (N, H, W, C), contiguous.
        mean: per channel, of images in [0, 1].
        std: standard deviation per channel, of images in [0, 1].

    Returns:
        float32 (N, H, W, C), contiguous.
    """
    scale, shift = affine(tuple(mean), tuple(std), images.shape[2], images.device)
    return as_lines(images).to(torch.float32, copy=True).mul_(scale).add_(shift).view(images.shape)
