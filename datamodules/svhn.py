"""Street View House Numbers (Netzer et al. 2011), read by torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torchvision import datasets

from datamodules.pipeline.in_memory import InMemoryImages


class SVHN(InMemoryImages):
    """Digits cut from photos of house numbers, 32×32 pixels in 10 classes; 73,257 are the training part.

    By default they are neither moved nor mirrored (Huang et al. 2016, section 4).

    Args:
        root: folder with ``train_32x32.mat`` and ``test_32x32.mat``.
        extra: train on the 531,131 easier digits of ``extra_32x32.mat`` as well.
        download: fetch the files into ``root`` if they are missing.
        shift: see :class:`~datamodules.pipeline.in_memory.InMemoryImages`.
        flip: mirror half of the images.
        **options: see :class:`~datamodules.pipeline.in_memory.InMemoryImages`.
    """

    num_classes = 10
    in_channels = 3
    image_size = 32
    mean = (0.4377, 0.4438, 0.4728)
    std = (0.1980, 0.2010, 0.1970)

    def __init__(
        self,
        root: Annotated[str, Path] = "data",
        extra: bool = False,
        download: bool = False,
        shift: int = 0,
        flip: bool = False,
        **options: Any,
    ) -> None:
        self.root = root
        self.extra = extra
        self.download = download
        self.class_names = [str(digit) for digit in range(10)]
        super().__init__(shift=shift, flip=flip, **options)

    def prepare_data(self) -> None:
        """Download the files if asked to and they are missing."""
        for part in (*self._training_parts, "test") if self.download else ():
            self._open(part, download=True)

    @property
    def _training_parts(self) -> list[str]:
        return ["train", "extra"] if self.extra else ["train"]

    def read(self, test: bool) -> tuple[Tensor, Tensor]:
        """uint8 (N, 32, 32, 3) and int64 (N,)."""
        parts = [self._open(name) for name in (["test"] if test else self._training_parts)]
        images = torch.cat([torch.from_numpy(part.data) for part in parts])
        labels = torch.cat([torch.from_numpy(part.labels).long() for part in parts])
        return images.permute(0, 2, 3, 1).contiguous(), labels

    def _open(self, part: str, download: bool = False) -> datasets.SVHN:
        try:
            return datasets.SVHN(self.root, split=part, download=download)
        except RuntimeError as error:
            raise MisconfigurationException(
                f"{part}_32x32.mat is not in {Path(self.root).resolve()}; give data.root, or data.download=true."
            ) from error
