"""The Inception module: filters of several sizes side by side (Szegedy et al. 2014, figure 2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lit_models.networks.folding import fold_batch_norm
from lit_models.networks.relu import relu


class Widths(NamedTuple):
    """Output channels of the convolutions of a module, in the order of table 1."""

    conv1: int
    reduce3: int
    conv3: int
    reduce5: int
    conv5: int
    pool: int


class ConvReLU(nn.Module):
    """Convolution → batch normalisation or a bias → ReLU: (N, C, H, W) -> (N, C', H/stride, W/stride)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, batch_norm: bool = True
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=not batch_norm)
        self.bn: nn.Module = nn.BatchNorm2d(out_channels, eps=1e-3) if batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.bn(self.conv(x)))

    def reparameterize(self) -> None:
        """Fold the batch normalisation into the convolution."""
        if isinstance(self.bn, nn.BatchNorm2d):
            self.conv = fold_batch_norm(self.conv, self.bn)
            self.bn = nn.Identity()


class InceptionModule(nn.Module):
    """1×1, 3×3 and 5×5 convolutions and a max-pool in parallel: (N, C, H, W) -> (N, out_channels, H, W).

    With bottlenecks (figure 2b) 1×1 convolutions reduce what the 3×3 and the 5×5 see and what comes out of the pool.
    The naive module (figure 2a) has none: its pool hands on all C channels, so the maps grow deeper with every module.

    Args:
        in_channels: C.
        widths: Output channels of the convolutions; the naive module uses those of its three.
        bottleneck: The module of figure 2b, otherwise that of figure 2a.
        batch_norm: Normalise after each convolution, which the original does not.
        large_kernel: Kernel width of the largest convolution, 5 in the paper and 3 in torchvision.
    """

    def __init__(
        self,
        in_channels: int,
        widths: Widths,
        bottleneck: bool = True,
        batch_norm: bool = True,
        large_kernel: int = 5,
    ) -> None:
        super().__init__()

        def convs(channels: int, *layers: tuple[int, int]) -> nn.Module:
            """Convolutions of (output channels, kernel size), one after the other."""
            sequence = nn.Sequential()
            for out_channels, kernel_size in layers:
                sequence.append(ConvReLU(channels, out_channels, kernel_size, batch_norm=batch_norm))
                channels = out_channels
            return sequence

        reduce3 = [(widths.reduce3, 1)] if bottleneck else []
        reduce5 = [(widths.reduce5, 1)] if bottleneck else []
        project = [(widths.pool, 1)] if bottleneck else []
        # The names, and the place of the pool in its branch, are those of torchvision.
        self.branch1 = ConvReLU(in_channels, widths.conv1, 1, batch_norm=batch_norm)
        self.branch2 = convs(in_channels, *reduce3, (widths.conv3, 3))
        self.branch3 = convs(in_channels, *reduce5, (widths.conv5, large_kernel))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), *convs(in_channels, *project).children())
        pooled = widths.pool if bottleneck else in_channels
        self.in_channels = in_channels
        self.out_channels = widths.conv1 + widths.conv3 + widths.conv5 + pooled

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], dim=1)
