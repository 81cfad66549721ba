"""What the Inception module of CS231n, lecture 9, costs."""

from __future__ import annotations

from torch import nn

from lit_models.cost import count_macs
from lit_models.networks.inception import InceptionModule, Widths

IMAGE_SHAPE = (256, 28, 28)
WIDTHS = Widths(conv1=128, reduce3=64, conv3=192, reduce5=64, conv5=96, pool=64)
"""The module of CS231n, lecture 9 (2017), slides 48 to 55."""


def convolution_macs(module: InceptionModule) -> list[tuple[str, int]]:
    """Name and multiply-adds of each convolution of a module, which keeps height and width."""
    _, height, width = IMAGE_SHAPE
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    return [
        (
            f"{conv.kernel_size[0]}×{conv.kernel_size[1]}, {conv.in_channels} → {conv.out_channels}",
            count_macs(conv, (conv.in_channels, height, width)),
        )
        for conv in convolutions
    ]
