"""What evaluation does to an image as a part of the network: uint8 pixels of any size to normalised images."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Preprocessed(nn.Module):
    """``net`` on images as files hold them: uint8 (N, H, W, C), RGB or grey, to logits (N, K).

    Resize and crop are two matrix products, whose matrices depend on H and W: a runtime needs no antialiased resize of
    its own, and H and W stay free. After each product values are rounded to levels, as evaluation does.

    Args:
        net: the network, for normalised images (N, C, image_size, image_size).
        image_size: side in pixels.
        crop_ratio: see :class:`~datamodules.pipeline.geometry.Geometry`.
        interpolation: bilinear or bicubic.
        mean: per channel, of images in [0, 1].
        std: standard deviation per channel.
    """

    def __init__(
        self,
        net: nn.Module,
        image_size: int,
        crop_ratio: float | None,
        interpolation: str,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.net = net
        self.image_size = image_size
        self.crop_ratio = crop_ratio
        self.interpolation = interpolation
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", 255 * torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).view(-1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        _, height, width, _ = pixels.shape
        sides = [torch.scalar_tensor(side, dtype=torch.float32) for side in (height, width)]
        short = torch.minimum(*sides)
        rows, columns = (self._filter(sides[i], pixels.shape[i + 1], short) for i in (0, 1))
        levels = pixels.permute(0, 3, 1, 2).float()
        levels = _rounded(levels @ columns.mT)
        levels = _rounded(rows @ levels)
        return self.net((levels - self.mean) / self.std)

    def _filter(self, side: Tensor, size: int, short: Tensor) -> Tensor:
        """The matrix (image_size, size) that resizes one axis of ``size`` pixels, and cuts out the centre."""
        target = torch.arange(self.image_size, dtype=torch.float32)
        start, shown = torch.zeros(()), side
        if self.crop_ratio is None:
            resized = torch.full((), float(self.image_size))
        else:
            shown = torch.minimum(side, 4 * short)  # of a very long picture the middle
            start = torch.floor((side - shown) / 2)
            resized = torch.floor(int(self.image_size / self.crop_ratio) * shown / short)
            target = target + torch.round((resized - self.image_size) / 2)
        scale = shown / resized
        support = torch.clamp(scale, min=1.0)
        source = torch.arange(size, dtype=torch.float32) - start
        inside = (source >= 0) & (source < shown)
        distance = (source + 0.5 - ((target + 0.5) * scale)[:, None]) / support
        weights = _kernel(distance.abs(), self.interpolation) * inside
        return weights / weights.sum(1, keepdim=True)


def _kernel(x: Tensor, interpolation: str) -> Tensor:
    if interpolation == "bilinear":
        return torch.clamp(1 - x, min=0)
    inner = (1.5 * x - 2.5) * x * x + 1  # Keys' cubic with a = -1/2, as in Pillow
    outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, inner, torch.where(x < 2, outer, torch.zeros(())))


def _rounded(levels: Tensor) -> Tensor:
    return torch.clamp(torch.floor(levels + 0.5), 0, 255)
