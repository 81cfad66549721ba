"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), read by torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torchvision import datasets

from datamodules.pipeline.in_memory import InMemoryImages


class _CIFAR(InMemoryImages):
    in_channels = 3
    image_size = 32
    _reader: type[datasets.CIFAR10]

    def __init__(self, root: Annotated[str, Path] = "data", download: bool = False, **options: Any) -> None:
        self.root = root
        self.download = download
        self.class_names = list(self._open(train=True).classes)
        super().__init__(**options)

    def read(self, test: bool) -> tuple[Tensor, Tensor]:
        """uint8 (N, 32, 32, 3) and int64 (N,)."""
        part = self._open(train=not test)
        return torch.from_numpy(part.data), torch.tensor(part.targets)

    def _open(self, train: bool) -> datasets.CIFAR10:
        try:
            return self._reader(self.root, train=train, download=self.download)
        except RuntimeError as error:
            name = self._reader.__name__
            raise MisconfigurationException(
                f"{name} is not in {Path(self.root).resolve()} ({error}); give data.root, or data.download=true."
            ) from error


class CIFAR10(_CIFAR):
    """60,000 photos of 32×32 pixels in 10 classes; 50,000 are the training part.

    Args:
        root: folder with ``cifar-10-batches-py/``.
        download: fetch it into ``root`` where it is missing.
        **options: see :class:`~datamodules.pipeline.in_memory.InMemoryImages`.
    """

    num_classes = 10
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)
    _reader = datasets.CIFAR10


class CIFAR100(_CIFAR):
    """60,000 photos of 32×32 pixels in 100 classes; 50,000 are the training part.

    Args:
        root: folder with ``cifar-100-python/``.
        download: fetch it into ``root`` where it is missing.
        **options: see :class:`~datamodules.pipeline.in_memory.InMemoryImages`.
    """

    num_classes = 100
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
    _reader = datasets.CIFAR100
