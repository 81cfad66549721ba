"""Data sets that fit into memory as one uint8 tensor."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from datamodules.pipeline.augment import ERASING_DRAWS, Erasing, blank_box, cutout, erase, normalise
from datamodules.pipeline.batches import BatchIndices
from datamodules.pipeline.choices import check_choice
from datamodules.pipeline.fingerprint import fingerprint
from datamodules.pipeline.image_data import ImageData, RawBatch
from datamodules.pipeline.randomness import uniforms
from datamodules.pipeline.resumable import check_std
from datamodules.pipeline.windows import Crops, Padding, Windows, normalise_crops

# Columns of the draws; the crop takes those before.
_CUTOUT, _ERASING = slice(3, 5), slice(5, 5 + ERASING_DRAWS)


class InMemoryImages(ImageData):
    """Small images: a batch is a lookup of crops, and everything after it is done on the device for the whole batch.

    A data set is a subclass with ``read`` and the attributes of :class:`~datamodules.pipeline.image_data.ImageData`.

    Args:
        shift: images are moved by up to this many pixels along each axis, drawn uniformly: a random crop from the image
            with that much padding (He et al. 2015, section 4.2: 4).
        padding: what comes in at the border: ``"zero"``, the mean colour, or ``"reflect"``, the image mirrored.
        flip: mirror half of the images, which are kept in memory both ways.
        cutout: side in pixels of a square set to the mean colour; 0 is none.
        erasing: probability that a random rectangle is erased.
        erasing_mode: what it is filled with: ``"const"``, the mean colour, or ``"pixel"``, normal noise in each pixel.
        on_device: keep the whole set in the device's memory, and there, for an epoch at a time, the order of its images
            and all that is drawn for them.
        **options: see :class:`~datamodules.pipeline.image_data.ImageData`.
    """

    def __init__(
        self,
        shift: int = 4,
        padding: Padding = "zero",
        flip: bool = True,
        cutout: int = 0,
        erasing: float = 0.0,
        erasing_mode: Erasing = "const",
        on_device: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if on_device and self.num_workers:
            raise MisconfigurationException("on_device leaves workers nothing to do: set num_workers to 0.")
        if not 0 <= shift < self.image_size:
            raise MisconfigurationException(f"shift is {shift}; give 0 to {self.image_size - 1} (pixels).")
        if cutout < 0:
            raise MisconfigurationException(f"cutout is {cutout}; give 0 (off) or a side in pixels.")
        if not 0 <= erasing <= 1:
            raise MisconfigurationException(f"erasing is {erasing}; give a probability, from 0 to 1.")
        check_choice("padding", padding, Padding)
        check_choice("erasing_mode", erasing_mode, Erasing)
        self.shift = shift
        self.padding = padding
        self.flip = flip
        self.cutout = cutout
        self.erasing = erasing
        self.erasing_mode: Erasing = erasing_mode
        self.on_device = on_device
        self._parts: dict[bool, tuple[Tensor, Tensor]] = {}
        self._windows: Windows | None = None

    @abstractmethod
    def read(self, test: bool) -> tuple[Tensor, Tensor]:
        """The training or the test part: uint8 (N, H, W, C) and int64 (N,)."""

    def part(self, test: bool) -> tuple[Tensor, Tensor]:
        """What :meth:`read` returns, read once."""
        if test not in self._parts:
            self._parts[test] = self.read(test)
        return self._parts[test]

    def labels(self, test: bool) -> Tensor:
        """int64 (N,)."""
        return self.part(test)[1]

    def fingerprint(self, test: bool) -> str:
        """Hash of every pixel and label."""
        return fingerprint(*self.part(test))

    def levelled(self, images: Tensor, crops: Crops | None) -> Tensor:
        """Images before they are normalised; a data set may subtract what they share.

        Args:
            images: uint8 (N, H, W, C).
            crops: what of the data set's images they are; ``None`` is all.
        """
        return images

    def fetcher(self, test: bool) -> Callable[[BatchIndices], RawBatch]:
        """A lookup of whole images or, with draws, of crops."""
        images, labels = self.part(test)
        windows = None if test else self._training_windows()
        images = windows.images(len(labels)) if windows else images.to(self._memory)
        crop = partial(Crops.drawn, shift=self.shift, flip=self.flip)
        return partial(_fetch, images, labels.to(self._memory), windows, crop, self.seed, self._draws)

    def _training_windows(self) -> Windows:
        if self._windows is None or self._windows.memory.device != self._memory:
            images, labels = self.part(test=False)
            self._windows = self._to_windows(images.to(self._memory))
            if not self.on_device:
                self._parts[False] = self._windows.images(len(labels)), labels  # not in memory once more
        return self._windows

    def _to_windows(self, images: Tensor) -> Windows:
        return Windows.of(images, self.flip, self.shift if self.padding == "reflect" else 0)

    @property
    def _draws(self) -> int:
        """Number of columns to draw: those of erasing are five sixths of all, and the last ones."""
        return _ERASING.stop if self.erasing else _ERASING.start

    @property
    def _memory(self) -> torch.device:
        """Where the images are."""
        if self.trainer is None or not self.on_device:
            return torch.device("cpu")
        return self.trainer.strategy.root_device

    def _training_batches(self, position: Callable[[], tuple[int, int]]) -> Iterator[BatchIndices]:
        batches = super()._training_batches(position)
        return batches if self.num_workers else self._drawn(list(batches))  # otherwise the workers draw

    def _drawn(self, batches: list[BatchIndices]) -> Iterator[BatchIndices]:
        """The batches of an epoch with what is drawn for them, made and moved to the images all at once.

        With the images on a device, nothing is then left to the host in a step but to say which part it is.
        """
        if not batches:
            return
        sizes = [len(batch.indices) for batch in batches]
        order = torch.cat([batch.indices for batch in batches])
        mixing = [self._draw_mixing(b.epoch, b.number, len(b.indices)) if self.on_device else None for b in batches]
        partners = [torch.arange(n) if mixed is None else mixed.partner for n, mixed in zip(sizes, mixing, strict=True)]
        epoch = batches[0].epoch
        assert epoch is not None
        draws = uniforms(self.seed, epoch, order, self._draws)
        parts = [tensor.to(self._memory).split(sizes) for tensor in (order, draws, torch.cat(partners))]
        for batch, mixed, indices, of_images, partner in zip(batches, mixing, *parts, strict=True):
            mixed = None if mixed is None else mixed._replace(partner=partner)
            yield batch._replace(indices=indices, draws=of_images, mixing=mixed)

    def augment_and_normalise(self, batch: RawBatch) -> Tensor:
        """Normalise and erase on the device."""
        draws = batch.draws
        if draws is None:
            return normalise(self.levelled(batch.images, None), self.mean, self.std).permute(0, 3, 1, 2)
        crops = Crops.drawn(draws, self.shift, self.flip)
        images = self.levelled(batch.images, crops)
        if self.padding == "zero":
            images = normalise_crops(images, self.mean, self.std, crops, self.shift)
        else:
            images = normalise(images, self.mean, self.std)
        _, height, width, _ = images.shape
        if self.cutout:
            blank_box(images, cutout(draws[:, _CUTOUT], height, width, self.cutout))
        if self.erasing:
            erase(images, draws[:, _ERASING], self.erasing, self.erasing_mode)
        return images.permute(0, 3, 1, 2)


def _fetch(
    images: Tensor,
    labels: Tensor,
    windows: Windows | None,
    crop: Callable[[Tensor], Crops],
    seed: int,
    count: int,
    batch: BatchIndices,
) -> RawBatch:
    indices, epoch, number, draws, mixing = batch
    if draws is None and epoch is not None:
        draws = uniforms(seed, epoch, indices, count)
    indices = indices.to(images.device, non_blocking=True)
    found = images.index_select(0, indices) if draws is None or windows is None else windows.at(indices, crop(draws))
    return RawBatch(found, labels.index_select(0, indices), draws, epoch, number, mixing=mixing)


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, of uint8 (N, H, W, C) scaled to [0, 1].

    Raises:
        MisconfigurationException: a channel has no variance.
    """
    channels = images.shape[-1]
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([images[..., c].flatten().bincount(minlength=256) for c in range(channels)]).double()
    share = counts / counts.sum(1, keepdim=True)
    mean = share @ values
    std = (share @ values.square() - mean.square()).clamp(min=0).sqrt()
    return check_std(tuple(mean.tolist()), tuple(std.tolist()))
