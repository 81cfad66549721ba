"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), read by torchvision."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torchvision import datasets

from datamodules.pipeline.in_memory import InMemoryImages
from datamodules.pipeline.windows import Crops, Windows


class _CIFAR(InMemoryImages):
    in_channels = 3
    image_size = 32
    mean: tuple[float, ...]
    std: tuple[float, ...]
    _reader: type[datasets.CIFAR10]

    _names: str

    def __init__(
        self,
        root: Annotated[str, Path] = "data",
        download: bool = False,
        pixel_mean: bool = False,
        **options: Any,
    ) -> None:
        self.root = root
        self.download = download
        self.pixel_mean = pixel_mean
        if pixel_mean:
            mean, std = torch.tensor(self.mean), torch.tensor(self.std)
            # Of all values at once: the mean of the variances and the variance of the means.
            overall = (std.square().mean() + mean.var(correction=0)).sqrt().item()
            self.std = (overall, overall, overall)
        self.class_names = self._names.split()
        super().__init__(**options)

    def prepare_data(self) -> None:
        """Download the files if asked to and they are missing."""
        if self.download:
            self._open(train=True, download=True)

    def read(self, test: bool) -> tuple[Tensor, Tensor]:
        """uint8 (N, 32, 32, 3) and int64 (N,)."""
        part = self._open(train=not test)
        return torch.from_numpy(part.data), torch.tensor(part.targets)

    def levelled(self, images: Tensor, crops: Crops | None) -> Tensor:
        """With ``pixel_mean``, images whose mean at each pixel is that of their channel: float32 (N, 32, 32, 3)."""
        if not self.pixel_mean:
            return images
        if self._relief.memory.device != images.device:
            self._relief = self._relief._replace(memory=self._relief.memory.to(images.device))
        if crops is None:
            return images - self._relief.images(1)
        return images - self._relief.at(torch.zeros_like(crops.top), crops)

    @cached_property
    def _relief(self) -> Windows:
        """Of the mean of the training images less that of their channels, in levels: float32 (1, 32, 32, 3)."""
        images, _ = self.part(test=False)
        train, _ = self.split
        mean_image = images[train].sum(0, dtype=torch.int64) / len(train)
        return self._to_windows((mean_image - 255 * torch.tensor(self.mean))[None])

    def _open(self, train: bool, download: bool = False) -> datasets.CIFAR10:
        try:
            return self._reader(self.root, train=train, download=download)
        except RuntimeError as error:
            name = self._reader.__name__
            raise MisconfigurationException(
                f"{name} is not in {Path(self.root).resolve()} ({error}); give data.root, or data.download=true."
            ) from error


class CIFAR10(_CIFAR):
    """60,000 photos of 32×32 pixels in 10 classes; 50,000 are the training part.

    Args:
        root: folder with ``cifar-10-batches-py/``.
        download: fetch it into ``root`` if it is missing.
        pixel_mean: subtract the mean of the training images pixel by pixel, and divide by one standard deviation for
            all channels (Huang et al. 2016), which the checkpoint has; of the mean it has that of each channel.
        **options: see :class:`~datamodules.pipeline.in_memory.InMemoryImages`.
    """

    num_classes = 10
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)
    _reader = datasets.CIFAR10
    _names = "airplane automobile bird cat deer dog frog horse ship truck"


class CIFAR100(_CIFAR):
    """60,000 photos of 32×32 pixels in 100 classes; 50,000 are the training part.

    Args:
        root: folder with ``cifar-100-python/``.
        download: fetch it into ``root`` if it is missing.
        pixel_mean: subtract the mean of the training images pixel by pixel, and divide by one standard deviation for
            all channels (Huang et al. 2016), which the checkpoint has; of the mean it has that of each channel.
        **options: see :class:`~datamodules.pipeline.in_memory.InMemoryImages`.
    """

    num_classes = 100
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
    _reader = datasets.CIFAR100
    _names = """
        apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel
        can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur
        dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion
        lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree
        pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea
        seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table
        tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman
        worm
    """
