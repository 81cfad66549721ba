"""The deploy form of VanillaNet as its authors publish it: a plain stack of convolutions (huawei-noah/VanillaNet)."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

STAGES = {
    5: ((1, 2, 4, 8), (2, 2, 2)),
    6: ((1, 2, 4, 8, 8), (2, 2, 2, 1)),
    9: ((1, 1, 2, 4, 4, 4, 8, 8), (1, 2, 2, 1, 1, 2, 1)),
    13: ((1, 1, 2, 4, 4, 4, 4, 4, 4, 4, 8, 8), (1, 2, 2, 1, 1, 1, 1, 1, 1, 2, 1)),
}
"""Of some depths the widths, in multiples of the stem's, and the stride of the max-pool of each block."""


class Series(nn.Conv2d):
    """ReLU, and a depthwise 7×7 convolution that has taken in the batch normalisation: (N, C, H, W) -> same."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 7, padding=3, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.relu(x))


def official_form(depth: int, num_classes: int = 1000, width: int = 512) -> nn.Module:
    """Images (N, 3, H, W) to logits (N, K)."""
    multiples, strides = STAGES[depth]
    widths = [width * multiple for multiple in multiples]
    layers: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=4), Series(width)]
    for (c_in, c_out), stride in zip(pairwise(widths), strides, strict=True):
        layers += [nn.Conv2d(c_in, c_out, 1), *([nn.MaxPool2d(stride)] if stride > 1 else []), Series(c_out)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Conv2d(widths[-1], num_classes, 1), nn.Flatten()]
    return nn.Sequential(*layers)
