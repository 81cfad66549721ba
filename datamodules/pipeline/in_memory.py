"""Data sets that fit into memory as one uint8 tensor."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from datamodules.pipeline.augment import (
    ERASING_DRAWS,
    Erasing,
    Padding,
    blank_box,
    blank_padding,
    cutout,
    erase,
    integers,
    lookup,
    normalise,
    reflect,
    shifted,
)
from datamodules.pipeline.batches import BatchIndices
from datamodules.pipeline.fingerprint import fingerprint
from datamodules.pipeline.image_data import ImageData, RawBatch
from datamodules.pipeline.randomness import uniforms
from datamodules.pipeline.resumable import check_std

# Columns of the draws; the shift takes the first two.
_FLIP, _CUTOUT, _ERASING = 2, slice(3, 5), slice(5, 5 + ERASING_DRAWS)


class InMemoryImages(ImageData):
    """Small images: a batch is an index lookup, and everything after it is done on the device for the whole batch.

    A data set is a subclass with ``read`` and the attributes of :class:`~datamodules.pipeline.image_data.ImageData`.

    Args:
        shift: images are moved by up to this many pixels along each axis, drawn uniformly: a random crop from the image
            with that much padding (He et al. 2015, section 4.2: 4).
        padding: what comes in at the border: ``"zero"``, the mean colour, or ``"reflect"``, the image mirrored.
        flip: mirror half of the images.
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
        self.shift = shift
        self.padding = padding
        self.flip = flip
        self.cutout = cutout
        self.erasing = erasing
        self.erasing_mode: Erasing = erasing_mode
        self.on_device = on_device
        self._parts: dict[bool, tuple[Tensor, Tensor]] = {}

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

    def levelled(self, images: Tensor) -> Tensor:
        """Images, uint8 (N, H, W, C), before anything is done to them; a data set may subtract what they share."""
        return images

    def fetcher(self, test: bool) -> Callable[[BatchIndices], RawBatch]:
        """An index lookup."""
        images, labels = self.part(test)
        if self.on_device:
            images, labels = images.to(self._device), labels.to(self._device)
        return partial(_fetch, images, labels, self.seed)

    @property
    def _device(self) -> torch.device:
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    def _training_batches(self, position: Callable[[], tuple[int, int]]) -> Iterator[BatchIndices]:
        batches = super()._training_batches(position)
        return self._drawn(list(batches)) if self.on_device else batches

    def _drawn(self, batches: list[BatchIndices]) -> Iterator[BatchIndices]:
        """The batches of an epoch with what is drawn for them, moved to the device all at once.

        In a step nothing is then left to the host but to say which part it is.
        """
        if not batches:
            return
        sizes = [len(batch.indices) for batch in batches]
        order = torch.cat([batch.indices for batch in batches])
        mixing = [self._draw_mixing(batch.epoch, batch.number, len(batch.indices)) for batch in batches]
        partners = [torch.arange(n) if mixed is None else mixed.partner for n, mixed in zip(sizes, mixing, strict=True)]
        epoch = batches[0].epoch
        assert epoch is not None
        draws = uniforms(self.seed, epoch, order, _ERASING.stop)
        parts = [tensor.to(self._device).split(sizes) for tensor in (order, draws, torch.cat(partners))]
        for batch, mixed, indices, of_images, partner in zip(batches, mixing, *parts, strict=True):
            mixed = None if mixed is None else mixed._replace(partner=partner)
            yield batch._replace(indices=indices, draws=of_images, mixing=mixed)

    def augment_and_normalise(self, batch: RawBatch) -> Tensor:
        """Crop, flip, normalise and erase on the device."""
        images, draws = self.levelled(batch.images), batch.draws
        if draws is None:
            return normalise(images, self.mean, self.std).permute(0, 3, 1, 2)
        _, height, width, _ = images.shape
        shifts = integers(draws[:, :_FLIP], 2 * self.shift + 1) - self.shift
        rows = shifted(height, shifts[:, 0])
        columns = shifted(width, shifts[:, 1], draws[:, _FLIP] < 0.5 if self.flip else None)
        if self.padding == "reflect":
            rows, columns = reflect(rows, height), reflect(columns, width)
        images = normalise(lookup(images, rows, columns), self.mean, self.std)
        if self.padding == "zero" and self.shift:
            blank_padding(images, rows, columns)
        if self.cutout:
            blank_box(images, cutout(draws[:, _CUTOUT], height, width, self.cutout))
        if self.erasing:
            erase(images, draws[:, _ERASING], self.erasing, self.erasing_mode)
        return images.permute(0, 3, 1, 2)


def _fetch(images: Tensor, labels: Tensor, seed: int, batch: BatchIndices) -> RawBatch:
    indices, epoch, number, draws, mixing = batch
    if draws is None and epoch is not None:
        draws = uniforms(seed, epoch, indices, _ERASING.stop)
    indices = indices.to(images.device, non_blocking=True)
    images, labels = images.index_select(0, indices), labels.index_select(0, indices)
    return RawBatch(images, labels, draws, epoch, number, mixing=mixing)


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
