"""Crop, flip, erase and normalise a batch of small images at once, on whatever device it is.

Images are uint8 (N, H, W, C). A crop from the padded image and a flip only say where each pixel comes from,
so one lookup does both.
"""

from __future__ import annotations

import functools
import math
from typing import Literal

import torch
from torch import Tensor

from datamodules.pipeline.randomness import normals

Padding = Literal["zero", "reflect"]


def integers(uniform: Tensor, count: int) -> Tensor:
    """Uniform numbers in [0, 1) -> int64 in [0, count)."""
    return (uniform * count).long().clamp_(max=count - 1)


def shifted(size: int, shift: Tensor, flip: Tensor | None = None) -> Tensor:
    """Coordinates that the pixels of a shifted, then mirrored line come from; outside [0, size) is padding.

    Args:
        size: pixels in the line.
        shift: int64 (N,); a crop of a line padded by p that starts at i is a shift of i - p.
        flip: bool (N,), mirror the line after the shift.

    Returns:
        int64 (N, size).
    """
    line = torch.arange(size, device=shift.device)
    lines = line if flip is None else torch.where(flip[:, None], size - 1 - line, line)
    return lines + shift[:, None]


def reflect(coordinates: Tensor, size: int) -> Tensor:
    """Mirror coordinates at the centres of the first and last pixel, as ``torch.nn.functional.pad`` does."""
    coordinates = coordinates.abs()
    return torch.where(coordinates >= size, 2 * (size - 1) - coordinates, coordinates)


def lookup(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """out[n, y, x] = images[n, rows[n, y], columns[n, x]]; coordinates outside are moved to the edge.

    Args:
        images: (N, H, W, C), contiguous.
        rows: int64 (N, H').
        columns: int64 (N, W').

    Returns:
        (N, H', W', C), of the type of ``images``.
    """
    n, height, width, channels = images.shape
    image = torch.arange(n, device=images.device)[:, None]
    starts = (image * height + rows.clamp(0, height - 1)) * width
    pixels = starts[:, :, None] + columns.clamp(0, width - 1)[:, None, :]
    found = images.view(-1, channels).index_select(0, pixels.flatten())
    return found.view(n, rows.shape[1], columns.shape[1], channels)


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
        lines = _lines(images)
        lines.add_(normals(uniform[:, -1], lines[0].numel()).view(lines.shape).mul_(_inside(images, box)))


def random_erasing(
    uniform: Tensor,
    height: int,
    width: int,
    probability: float,
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
) -> Tensor:
    """A rectangle per image with the given probability (Zhong et al. 2017, algorithm 1; torchvision's
    numbers).

    Its area is uniform in ``scale`` of the image's and its height over width log-uniform in ``ratio``; the
    first of ten tries that is smaller than the image is taken, and no rectangle where none is.

    Args:
        uniform: (N, ERASING_DRAWS) in [0, 1).

    Returns:
        Top, bottom, left, right (bottom and right excluded; all 0 where nothing is erased), int64 (N, 4).
    """
    area = height * width * (scale[0] + (scale[1] - scale[0]) * uniform[:, 3 : 3 + ERASING_TRIES])
    least, most = math.log(ratio[0]), math.log(ratio[1])
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
    """Set to 0, the mean colour, what :func:`lookup` took from outside the image; in place.

    Args:
        images: float (N, H, W, C), contiguous, normalised.
        rows: int64 (N, H), as given to :func:`lookup`.
        columns: int64 (N, W).
    """
    _, height, width, channels = images.shape
    keep_rows = ((rows >= 0) & (rows < height)).to(images.dtype)
    keep_columns = ((columns >= 0) & (columns < width)).to(images.dtype)
    _lines(images).mul_(keep_rows[:, :, None]).mul_(keep_columns.repeat_interleave(channels, 1)[:, None, :])


def blank_box(images: Tensor, box: Tensor) -> None:
    """Set the pixels of a box to 0, the mean colour; in place.

    Args:
        images: float (N, H, W, C), contiguous, normalised.
        box: int64 (N, 4): top, bottom, left, right.
    """
    _lines(images).mul_(1 - _inside(images, box))


def _inside(images: Tensor, box: Tensor) -> Tensor:
    """1 for the values of ``images`` in the box, 0 for the others: (N, H, W·C)."""
    _, height, width, channels = images.shape
    y, x = torch.arange(height, device=box.device), torch.arange(width, device=box.device)
    rows = ((y >= box[:, :1]) & (y < box[:, 1:2])).to(images.dtype)
    columns = ((x >= box[:, 2:3]) & (x < box[:, 3:])).to(images.dtype).repeat_interleave(channels, 1)
    return rows[:, :, None] * columns[:, None, :]


def _lines(images: Tensor) -> Tensor:
    # Whole rows of pixels: a broadcast over one to three channels alone would not vectorise.
    return images.view(*images.shape[:2], images.shape[2:].numel())


@functools.cache
def _affine(mean: tuple[float, ...], std: tuple[float, ...], width: int, device: torch.device) -> tuple[Tensor, Tensor]:
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
    scale, shift = _affine(tuple(mean), tuple(std), images.shape[2], images.device)
    return torch.mul(_lines(images), scale).add_(shift).view(images.shape)
