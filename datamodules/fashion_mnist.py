"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017)."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torchvision import datasets

from datamodules.pipeline.in_memory import InMemoryImages


class FashionMNIST(InMemoryImages):
    """70,000 grey photos of clothes, 28×28 pixels in 10 classes; 60,000 are the training part.

    Args:
        root: folder with the four ``*-ubyte.gz`` files (Debian's ``dataset-fashion-mnist`` puts them into
            ``/usr/share/datasets/fashion-mnist``), or torchvision's root, with ``FashionMNIST/raw/``.
        download: fetch the files into ``root`` if they are missing.
        **options: see :class:`~datamodules.pipeline.in_memory.InMemoryImages`.
    """

    num_classes = 10
    in_channels = 1
    image_size = 28
    mean = (0.2860,)
    std = (0.3530,)

    def __init__(self, root: Annotated[str, Path] = "data", download: bool = False, **options: Any) -> None:
        self.root = root
        self.download = download
        self.class_names = list(datasets.FashionMNIST.classes)
        super().__init__(**options)

    def prepare_data(self) -> None:
        """Download the files if asked to and they are missing."""
        if self.download and not self._file("train-images").is_file():
            self._open(train=True, download=True)

    def read(self, test: bool) -> tuple[Tensor, Tensor]:
        """uint8 (N, 28, 28, 1) and int64 (N,)."""
        part = "t10k" if test else "train"
        images, labels = self._file(f"{part}-images"), self._file(f"{part}-labels")
        if images.is_file():
            return _read_idx(images, 16).view(-1, 28, 28, 1), _read_idx(labels, 8).long()
        reader = self._open(train=not test)
        return reader.data.unsqueeze(3), reader.targets

    def _file(self, name: str) -> Path:
        return Path(self.root).expanduser() / f"{name}-idx{3 if name.endswith('images') else 1}-ubyte.gz"

    def _open(self, train: bool, download: bool = False) -> datasets.FashionMNIST:
        try:
            return datasets.FashionMNIST(self.root, train=train, download=download)
        except RuntimeError as error:
            raise MisconfigurationException(
                f"Fashion-MNIST is not in {Path(self.root).resolve()}; give data.root, or data.download=true."
            ) from error


def _read_idx(path: Path, header: int) -> Tensor:
    try:
        with gzip.open(path) as file:
            return torch.from_numpy(np.frombuffer(file.read(), np.uint8, offset=header).copy())
    except (gzip.BadGzipFile, EOFError, ValueError) as error:
        raise OSError(f"{path} is broken: {error}. Replace it.") from error
