"""scikit-learn's handwritten digits: 1,797 real images that come with the package."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from datamodules.pipeline.in_memory import InMemoryImages, channel_statistics
from datamodules.pipeline.splits import split

_TEST_FRACTION = 0.2


class Digits(InMemoryImages):
    """Optical recognition of handwritten digits (Alpaydin and Kaynak 1998, the test part of the UCI set).

    8×8 pixels, 17 grey levels, 10 classes. There is no official test part: a fixed fifth of each class is held out as
    one. Digits are not mirrored, and moved by at most a pixel of the original.

    Args:
        image_size: side in pixels to which the images are enlarged, bilinearly: strokes stay within the grey levels,
            where a cubic would overshoot.
        shift: see :class:`~datamodules.pipeline.in_memory.InMemoryImages`; by default one pixel of the original.
        flip: mirror half of the images.
        **options: see :class:`~datamodules.pipeline.in_memory.InMemoryImages`.
    """

    num_classes = 10
    in_channels = 1

    def __init__(self, image_size: int = 32, shift: int | None = None, flip: bool = False, **options: Any) -> None:
        if image_size < 8:
            raise MisconfigurationException(f"image_size is {image_size}; the digits have 8 pixels, give at least 8.")
        self.image_size = image_size
        self.class_names = [str(digit) for digit in range(10)]
        super().__init__(shift=image_size // 8 if shift is None else shift, flip=flip, **options)

    @cached_property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return channel_statistics(self.part(test=False)[0])

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of the training images."""
        return self._statistics[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of the training images."""
        return self._statistics[1]

    def read(self, test: bool) -> tuple[Tensor, Tensor]:
        """uint8 (N, image_size, image_size, 1) and int64 (N,)."""
        digits = load_digits()
        labels = torch.from_numpy(digits.target).long()
        indices = split(labels, val_fraction=_TEST_FRACTION)[test]
        levels = torch.from_numpy(digits.images).float()[indices, None] * (255 / 16)
        size = [self.image_size, self.image_size]
        images = tvf.resize(levels, size, interpolation=tvf.InterpolationMode.BILINEAR).round().byte()
        return images.permute(0, 2, 3, 1).contiguous(), labels[indices]
