"""What DataModules of photos with boxes or masks share: statistics, the training part, and the canvas."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import get_worker_info

from datamodules.pipeline.augment import blank_padding, normalise
from datamodules.pipeline.cache import cached
from datamodules.pipeline.decode import MAX_PIXELS
from datamodules.pipeline.folder import Listing
from datamodules.pipeline.randomness import Stream, generator
from datamodules.pipeline.resumable import ResumableData, check_std
from datamodules.pipeline.statistics import photo_statistics


class Scenes(ResumableData):
    """Photos of any size, in a training part, a validation part of its own, and a test part.

    Args:
        image_size: side in pixels; which one, the data set says.
        flip: mirror half of the training images.
        train_size: number of images to train on (default: all); a smaller part lies within a larger one, and both are
            the same for every seed.
        mean: per channel, in [0, 1] (default: computed once, from up to 10,000 training images).
        std: standard deviation per channel, of images in [0, 1] (default: computed with the mean).
        max_pixels: limit on the pixels of a photo; one that claims more counts as broken.
        **options: see :class:`~datamodules.pipeline.resumable.ResumableData`.
    """

    in_channels = 3

    def __init__(
        self,
        image_size: int,
        flip: bool = True,
        train_size: int | None = None,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        max_pixels: int = MAX_PIXELS,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if image_size < 1:
            raise MisconfigurationException(f"image_size is {image_size}; give at least 1 pixel.")
        if std is not None and min(std) <= 0:
            raise MisconfigurationException(f"std is {std}; give numbers above 0.")
        self.image_size = image_size
        self.flip = flip
        self.train_size = train_size
        self.max_pixels = max_pixels
        self._mean, self._std = mean, std

    @abstractmethod
    def files(self, test: bool) -> tuple[Path, list[str]]:
        """Root and files of the training images, those of validation behind them, or of the test images."""

    @property
    @abstractmethod
    def held_out(self) -> int:
        """Number of validation images, at the end of these."""

    def test_images(self) -> int:
        """Number of test images."""
        return len(self.files(test=True)[1])

    @cached_property
    def split(self) -> tuple[Tensor, Tensor]:
        """Indices of the training and of the validation images."""
        total = len(self.files(test=False)[1])
        own = total - self.held_out
        size = own if self.train_size is None else self.train_size
        if not 0 < size <= own:
            raise MisconfigurationException(f"train_size is {size}, of {own} training images; ask for 1 to {own}.")
        chosen = torch.from_numpy(generator(Stream.SPLIT).permutation(own)[:size])
        return chosen.sort().values, torch.arange(own, total)

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of the channels, as given or computed from the training images."""
        return self._mean or self._statistics[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of the channels, as given or computed from the training images."""
        return self._std or self._statistics[1]

    @cached_property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        root, files = self.files(test=False)
        files = files[: len(files) - self.held_out]
        sizes = [os.path.getsize(root / file) for file in files]
        listing = Listing(root, files, torch.zeros(len(files)), self.class_names)
        made_from = ["photo statistics 2", files, sizes, "stop", self.max_pixels]
        found = cached("statistics", made_from, lambda: photo_statistics(listing, max_pixels=self.max_pixels))
        return check_std(tuple(found["mean"].tolist()), tuple(found["std"].tolist()))

    def on_canvas(self, images: Tensor, sizes: Tensor) -> Tensor:
        """Normalise photos, and set to 0, the mean colour, what lies beyond them.

        Args:
            images: uint8 (N, H, W, 3).
            sizes: height and width of each photo, at the top left; int64 (N, 2).

        Returns:
            (N, 3, H, W), channels_last; float32 unless the trainer's precision is a ``-true`` one.
        """
        normalised = normalise(images, self.mean, self.std)
        rows, columns = (
            torch.arange(side, device=sizes.device) < sizes[:, axis, None]
            for axis, side in enumerate(images.shape[1:3])
        )
        blank_padding(normalised, rows, columns)
        normalised = normalised.permute(0, 3, 1, 2)
        # Lightning casts a batch before the hook that makes the images.
        return normalised if self.trainer is None else self.trainer.precision_plugin.convert_input(normalised)


def canvas(sizes: Sequence[tuple[int, int]], divisor: int, *channels: int, value: int = 0) -> Tensor:
    """Room for images of these sizes: uint8 (N, H, W, *channels) of ``value``, its sides multiples of ``divisor``.

    In a worker process it lies in shared memory, as the queue to the main process would copy it otherwise.
    """
    height, width = (-(-max((size[axis] for size in sizes), default=1) // divisor) * divisor for axis in (0, 1))
    room = torch.full((len(sizes), height, width, *channels), value, dtype=torch.uint8)
    return room.share_memory_() if get_worker_info() is not None else room
