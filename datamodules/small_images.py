"""Any folder of small images, decoded once."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from torch import Tensor

from datamodules.pipeline.cache import cached
from datamodules.pipeline.decode import decode, read_bytes
from datamodules.pipeline.folder import Listing, find_parts, list_images
from datamodules.pipeline.in_memory import InMemoryImages, channel_statistics


class SmallImages(InMemoryImages):
    """A folder of class folders whose images fit into memory; decoded once and cached.

    Args:
        root: folder with ``train/<class>/`` and ``test/<class>/`` (or ``val/``, then used as the test
            part), or with the class folders alone, and no test part.
        image_size: side in pixels to which the images are resized (bilinear, antialiased); not needed where
            all are square and of one size.
        mean: per channel, in [0, 1]; computed from the training images where not given.
        std: the same.
        **options: see :class:`~datamodules.pipeline.in_memory.InMemoryImages`.
    """

    in_channels = 3

    def __init__(
        self,
        root: Annotated[str, Path],
        image_size: int | None = None,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        **options: Any,
    ) -> None:
        train, self._test_root = find_parts(root)
        self._listing = list_images(train)
        self.class_names = self._listing.class_names
        self.num_classes = len(self.class_names)
        self._resize = image_size
        self.image_size = image_size or _decode(train, self._listing.files[0]).shape[0]
        self._mean, self._std = mean, std
        super().__init__(**options)

    @property
    def mean(self) -> tuple[float, ...]:
        """As given, or of the training images."""
        return self._mean or self._statistics[0]

    @property
    def std(self) -> tuple[float, ...]:
        """As given, or of the training images."""
        return self._std or self._statistics[1]

    @cached_property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return channel_statistics(self.part(test=False)[0])

    def read(self, test: bool) -> tuple[Tensor, Tensor]:
        """uint8 (N, image_size, image_size, 3) and int64 (N,)."""
        listing = self._listing
        if test:
            if self._test_root is None:
                raise MisconfigurationException(f"{listing.root} has no test part: there is no test/ or val/ folder.")
            listing = list_images(self._test_root, self.class_names)
        place = hashlib.sha256(str(listing.root.resolve()).encode()).hexdigest()[:16]
        name = f"images-{place}-{self.image_size}"
        made_from = ["1", self._resize, listing.files, listing.stamps]
        images = cached(name, made_from, lambda: {"images": self._decode(listing)})["images"]
        return torch.from_numpy(images), listing.labels

    def _decode(self, listing: Listing) -> np.ndarray:
        side = self.image_size
        images = np.empty((len(listing.files), side, side, 3), np.uint8)
        for target, file in zip(images, listing.files, strict=True):
            image = _decode(listing.root, file)
            if self._resize and image.shape[:2] != (side, side):
                image = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
            elif image.shape != target.shape:
                height, width, _ = image.shape
                raise MisconfigurationException(
                    f"{listing.root / file} is {width}×{height} pixels, others are {side}×{side}; "
                    "give the size for all as data.image_size."
                )
            target[:] = image
        return images


def _decode(root: Path, file: str) -> np.ndarray:
    path = str(root / file)
    return decode(read_bytes(path), path)
