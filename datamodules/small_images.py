"""Any folder of small images, decoded once."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from datamodules.pipeline.cache import cached
from datamodules.pipeline.decode import MAX_PIXELS, decode, read_bytes
from datamodules.pipeline.folder import ImageFolder, Listing
from datamodules.pipeline.geometry import squash
from datamodules.pipeline.in_memory import InMemoryImages, channel_statistics


class SmallImages(InMemoryImages):
    """A folder of class folders whose images fit into memory; decoded once and cached.

    ``train/``, ``val/`` and ``test/`` are found as :class:`~datamodules.pipeline.folder.ImageFolder` says: if all three
    have the class folders, ``val/`` is the validation part; if only two have, validation is cut from ``train/`` and the
    other is the test part. ``folders`` in the summary says what was used. An image is turned as its EXIF data says.

    Args:
        root: folder with ``train/<class>/``, ``val/<class>/`` and ``test/<class>/``, the last two optional, or with the
            class folders alone, and no test part.
        image_size: side in pixels to which the images are resized (bilinear, antialiased); not needed if all are square
            and of one size.
        mean: per channel, in [0, 1] (default: computed from the training images).
        std: standard deviation per channel, of images in [0, 1] (default: computed from the training images).
        max_pixels: limit on the pixels of an image; one that claims more is refused.
        **options: see :class:`~datamodules.pipeline.in_memory.InMemoryImages`.
    """

    in_channels = 3

    def __init__(
        self,
        root: Annotated[str, Path],
        image_size: int | None = None,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        max_pixels: int = MAX_PIXELS,
        **options: Any,
    ) -> None:
        if std is not None and min(std) <= 0:
            raise MisconfigurationException(f"std is {std}; give numbers above 0.")
        self._folder = ImageFolder(root)
        self.class_names = self._folder.class_names
        self.num_classes = len(self.class_names)
        self.max_pixels = max_pixels
        self._resize = image_size
        self.image_size = image_size or self._image(self._folder.training, 0).shape[0]
        self._mean, self._std = mean, std
        super().__init__(**options)

    @property
    def held_out(self) -> int:
        """Number of images of ``val/``, which stand behind those of ``train/``, if it is the validation part."""
        return self._folder.held_out

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
        images, _ = self.part(test=False)
        return channel_statistics(images[: len(images) - self.held_out])

    def read(self, test: bool) -> tuple[Tensor, Tensor]:
        """uint8 (N, image_size, image_size, 3) and int64 (N,)."""
        listing = self._folder.test() if test else self._folder.training
        sizes, times = listing.stamps()
        changed = np.array(times)

        def is_current(found: dict[str, np.ndarray]) -> bool:
            # A copy of the data set has other times: only then are the files read again, not decoded.
            return np.array_equal(found["changed"], changed) or bytes(found["content"]) == _digest(listing)

        def build() -> dict[str, np.ndarray]:
            content = np.frombuffer(_digest(listing), np.uint8)
            return {"images": self._decode(listing), "changed": changed, "content": content}

        made_from = ["images 2", self._resize, self.image_size, list(listing.files), sizes]
        return torch.from_numpy(cached("images", made_from, build, is_current)["images"]), listing.labels

    def report(self) -> dict[str, Any]:
        """The summary's entries about the data."""
        return {**super().report(), "folders": self._folder.folders(self.val_fraction)}

    def _decode(self, listing: Listing) -> np.ndarray:
        side = self.image_size
        images = np.empty((len(listing.files), side, side, 3), np.uint8)
        for index, target in enumerate(images):
            image = self._image(listing, index)
            if self._resize and image.shape[:2] != (side, side):
                image = squash(image, side)
            elif image.shape != target.shape:
                height, width, _ = image.shape
                raise MisconfigurationException(
                    f"{listing.root / listing.files[index]} is {width}×{height} pixels, others are {side}×{side}; "
                    "give the size for all as data.image_size."
                )
            target[:] = image
        return images

    def _image(self, listing: Listing, index: int) -> np.ndarray:
        path = str(listing.root / listing.files[index])
        return decode(read_bytes(path), path, max_pixels=self.max_pixels)


def _digest(listing: Listing) -> bytes:
    """Hash of the content of all files."""
    digest = hashlib.blake2b(digest_size=16)
    for file in listing.files:
        digest.update(read_bytes(f"{listing.root}/{file}"))
    return digest.digest()
