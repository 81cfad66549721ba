"""Crops of small images, mirrored or not, as one lookup for each image.

Where images lie one behind the other in memory, the lines of a crop are as far apart as those of its image, so where it
starts says where all of it is. It may reach beyond the image: what it holds there are pixels of others.
"""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from datamodules.pipeline.augment import affine, as_lines, integers

Padding = Literal["zero", "reflect"]


class Crops(NamedTuple):
    """One crop of each image of a batch, of its size."""

    top: Tensor
    """The line that comes first, below 0 where it is of the padding: int64 (N,)."""
    left: Tensor
    """The column that comes first, of the mirrored image where that is mirrored: int64 (N,)."""
    mirrored: Tensor | None
    """bool (N,); ``None`` mirrors nothing."""

    @classmethod
    def drawn(cls, uniform: Tensor, shift: int, flip: bool) -> Crops:
        """Crops from images padded by ``shift`` on all sides; with ``flip`` half of them are mirrored afterwards.

        Args:
            uniform: (N, 3) or more columns in [0, 1).
        """
        top, left = (integers(uniform[:, :2], 2 * shift + 1) - shift).unbind(1)
        if not flip:
            return cls(top, left, None)
        mirrored = uniform[:, 2] < 0.5
        return cls(top, torch.where(mirrored, -left, left), mirrored)


class Windows(NamedTuple):
    """Images, their mirror images, and room for a crop to reach beyond the first and the last one, in one memory."""

    memory: Tensor
    """(1 + N + 1, H, W, C), or (1 + 2N + 1, H, W, C) with mirror images."""
    border: int
    """Pixels on each side of an image that were mirrored into it."""

    @classmethod
    def of(cls, images: Tensor, mirrored: bool, border: int = 0) -> Windows:
        """Those of ``images``, (N, H, W, C).

        Args:
            mirrored: keep the mirror images as well.
            border: pixels to mirror into the images on each side, fewer than H and W.
        """
        images = _with_border(images, border)
        both = [images, images.flip(2)] if mirrored else [images]
        return cls(torch.cat((images[:1], *both, images[:1])), border)

    def images(self, count: int) -> Tensor:
        """The first ``count`` images, as they were given."""
        _, height, width, _ = self.memory.shape
        b = self.border
        return self.memory[1 : 1 + count, b : height - b, b : width - b]

    def at(self, indices: Tensor, crops: Crops) -> Tensor:
        """Crops of the images at ``indices``, int64 (N,): (N, H, W, C), contiguous."""
        total, height, width, channels = self.memory.shape
        rows, columns = height - 2 * self.border, width - 2 * self.border
        number = 1 + indices
        if crops.mirrored is not None:
            number = number + (total - 2) // 2 * crops.mirrored
        first = (number * height + crops.top + self.border) * width + crops.left + self.border
        line = width * channels
        last = self.memory.numel() - (rows - 1) * line - columns * channels
        anywhere = self.memory.as_strided((last + 1, rows, columns * channels), (1, line, 1))
        return anywhere.index_select(0, first * channels).view(-1, rows, columns, channels)


def _with_border(images: Tensor, border: int) -> Tensor:
    """Mirrored at the centres of the first and last pixels, as ``torch.nn.functional.pad`` does it for ``reflect``."""
    for axis in (1, 2) if border else ():
        first = images.narrow(axis, 1, border)
        last = images.narrow(axis, images.shape[axis] - 1 - border, border)
        images = torch.cat((first.flip(axis), images, last.flip(axis)), axis)
    return images


def normalise_crops(
    images: Tensor, mean: tuple[float, ...], std: tuple[float, ...], crops: Crops, padding: int
) -> Tensor:
    """Values in [0, 255] -> (x / 255 - mean) / std, and 0, the mean colour, outside of the image.

    Args:
        images: uint8 or float (N, H, W, C), contiguous; :meth:`Windows.at` of ``crops``.
        mean: per channel, of images in [0, 1].
        std: standard deviation per channel, of images in [0, 1].
        padding: how far a crop may reach beyond its image.

    Returns:
        float32 (N, H, W, C), contiguous.
    """
    _, height, width, _ = images.shape
    scale, shift, rows = within(tuple(mean), tuple(std), height, width, padding, images.device)
    place = crops.left + padding
    # Columns outside are blanked by what they are multiplied with. Of the lines the first and last few alone can be.
    lines = as_lines(images).to(torch.float32, copy=True)
    lines.mul_(scale.index_select(0, place)[:, None]).add_(shift.index_select(0, place)[:, None])
    inside = rows.index_select(0, crops.top + padding)[:, :, None]
    for ends in (slice(0, padding), slice(height - padding, height)):
        lines[:, ends].mul_(inside[:, ends])
    return lines.view(images.shape)


@functools.cache
def within(
    mean: tuple[float, ...], std: tuple[float, ...], height: int, width: int, padding: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """For each place from -padding to padding: scale and shift of the columns' values, 0 outside, and 1 for a line
    inside."""
    with torch.inference_mode(False):
        scale, shift = affine(mean, std, width, device)
        start = torch.arange(-padding, padding + 1, device=device)[:, None]
        rows, columns = (
            ((line := start + torch.arange(size, device=device)) >= 0) & (line < size) for size in (height, width)
        )
        keep = columns.float().repeat_interleave(len(mean), 1)
        return scale * keep, shift * keep, rows.float()
