"""What DataModules of images with labels share: stratified splits, mixup and CutMix."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from datamodules.pipeline.decode import read_bytes
from datamodules.pipeline.fingerprint import fingerprint
from datamodules.pipeline.geometry import Geometry
from datamodules.pipeline.mixing import Mixing, draw_mixing, mix, mixing_in_words
from datamodules.pipeline.randomness import Stream, generator
from datamodules.pipeline.resumable import ResumableData
from datamodules.pipeline.splits import split, stratified_order


class RawBatch(NamedTuple):
    """What a loader hands over, before the work that is done on the device."""

    images: Tensor
    """uint8 (N, H, W, C)."""
    targets: Tensor
    """int64 (N,)."""
    draws: Tensor | None
    """float32 (N, D) in [0, 1), the random numbers of each image; ``None`` in evaluation."""
    epoch: int | None
    number: int
    """Position of the batch in its epoch."""
    skipped: tuple[str, ...] = ()
    """Broken files that were left out."""
    mixing: Mixing | None = None
    """How the batch is mixed, where that has been drawn for the whole epoch."""


class ImageData(ResumableData):
    """Images with one label each, in a training, a validation and a test part.

    A batch is ``(images, targets)`` after ``on_after_batch_transfer``: images (N, C, H, W), normalised, channels_last
    in memory, float32 unless the trainer's precision is a ``-true`` one; targets int64 (N,), or float32 (N, K) if
    mixed.

    The validation part is cut from the training images, by class, equally for every seed. The test part is read by
    ``test`` alone. What happens to an image is a function of (seed, epoch, its index), the order of (seed, epoch),
    mixing of (seed, epoch, batch, rank).

    Args:
        batch_size: images in a batch of one rank. An epoch is cut into batches whose sizes differ by at most one, none
            of them above this number except where a batch of a single image would be left (see
            :func:`~datamodules.pipeline.batches.training_steps`).
        equal_batches: make all training batches of exactly ``batch_size`` images, as compiled and captured networks
            need them. What is left of an epoch is left out: fewer than ``batch_size`` images for each rank, others in
            every epoch, since each has an order of its own.
        eval_batch_size: images in a batch of validation and test (default: ``batch_size``).
        val_fraction: share of the training images that is held out for validation; 0 validates on nothing.
        train_fraction: share of the rest to train on, by class; a smaller one lies within a larger one.
        train_size: number of images to train on, in place of ``train_fraction``.
        mixup_alpha: α of mixup's Beta(α, α); 0 is no mixup.
        cutmix_alpha: α of CutMix's Beta(α, α); 0 is no CutMix. With both, each batch takes one of them at random.
        mix_prob: probability that a batch is mixed.
        mix_off_epochs: number of the last epochs before ``max_epochs`` that are not mixed.
        num_workers: processes that make batches ahead of time.
        seed: of all random numbers, together with epoch and index.
        allow_changed_data: let a run that is resumed go on though its training images have changed. Otherwise it is
            refused.
    """

    def __init__(
        self,
        batch_size: int = 128,
        eval_batch_size: int | None = None,
        val_fraction: float = 0.1,
        train_fraction: float = 1.0,
        train_size: int | None = None,
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
        mix_prob: float = 1.0,
        mix_off_epochs: int = 0,
        num_workers: int = 0,
        seed: int = 0,
        allow_changed_data: bool = False,
        equal_batches: bool = False,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, seed, allow_changed_data, equal_batches)
        for name, alpha in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha)):
            if alpha < 0:
                raise MisconfigurationException(f"{name} is {alpha}; give 0 (off) or a positive number.")
        if not 0 <= mix_prob <= 1:
            raise MisconfigurationException(f"mix_prob is {mix_prob}; give a probability, from 0 to 1.")
        if mix_off_epochs < 0:
            raise MisconfigurationException(f"mix_off_epochs is {mix_off_epochs}; give 0 or more.")
        self.val_fraction = val_fraction
        self.train_fraction = train_fraction
        self.train_size = train_size
        self.mixup_alpha = mixup_alpha
        self.cutmix_alpha = cutmix_alpha
        self.mix_prob = mix_prob
        self.mix_off_epochs = mix_off_epochs

    # What a data set says

    @abstractmethod
    def labels(self, test: bool) -> Tensor:
        """int64 (N,), of the training images (validation part included) or of the test images."""

    @abstractmethod
    def augment_and_normalise(self, batch: RawBatch) -> Tensor:
        """The rest of the work, on the device: float32 (N, C, H, W), channels_last."""

    @classmethod
    def geometry(cls, settings: Mapping[str, Any]) -> Geometry:
        """What evaluation does to an image file before it is normalised; the data set need not be there.

        Args:
            settings: of the constructor, ``image_size`` in any case.
        """
        return Geometry(settings["image_size"], channels=cls.in_channels)

    # Splits and loaders

    @property
    def held_out(self) -> int:
        """Number of images at the end of the training part that the data set itself has set aside for validation."""
        return 0

    @cached_property
    def split(self) -> tuple[Tensor, Tensor]:
        """Indices of the training and of the validation images."""
        labels = self.labels(test=False)
        return split(labels, self.val_fraction, self.train_fraction, self.train_size, self.held_out)

    def setup(self, stage: str) -> None:
        """Check what only a run can know."""
        super().setup(stage)
        if stage == "fit" and self.mix_off_epochs and not _ends_with_an_epoch(self.trainer):
            raise MisconfigurationException(
                f"mix_off_epochs={self.mix_off_epochs} counts from the last epoch: set trainer.max_epochs, and leave "
                "trainer.max_steps out."
            )
        labels = self.labels(test=stage == "test")
        if labels.min() < 0 or labels.max() >= self.num_classes:
            raise MisconfigurationException(
                f"The labels run from {labels.min()} to {labels.max()}, but there are {self.num_classes} classes, "
                f"whose labels are 0 to {self.num_classes - 1}."
            )

    def test_images(self) -> int:
        """Number of test images."""
        return len(self.labels(test=True))

    def sample_loader(self, images: int, skip: int = 0, test: bool = True) -> Any:
        """``images`` test images after the first ``skip``, in a fixed order that holds the classes in their proportions
        throughout; without ``test``, images that are trained on, which are not augmented here.
        """
        indices = torch.arange(self.test_images()) if test else self.split[0]
        order = stratified_order(self.labels(test)[indices])
        return self._evaluation_loader(indices[order][skip : skip + images], test)

    def evaluation_images(self, files: Sequence[str | Path]) -> Tensor:
        """Any image files, prepared as those of the test part are: normalised, float32 (N, C, H, W).

        Raises:
            DecodeError: if one is not an image, or broken.
        """
        shown = self.geometry({**vars(self), "image_size": self.image_size})
        images = torch.stack([shown(read_bytes(str(file)), str(file)) for file in files])
        batch = RawBatch(images, torch.zeros(len(files), dtype=torch.int64), None, None, 0)
        return self.on_after_batch_transfer(batch, 0)[0]

    def fingerprint(self, test: bool) -> str:
        """A name for the content of the training or the test part: equal for equal data, wherever it lies."""
        return fingerprint(self.labels(test))

    def report(self) -> dict[str, Any]:
        """The summary's entries about the training part or, in a test, the test part."""
        testing = self.trainer is not None and self.trainer.state.fn in ("test", "predict")
        return super().report() | ({"test_images": len(self.labels(test=True))} if testing else {})

    def explain(self, trainer: Any) -> dict[str, str]:
        """What ``fathom explain`` says of the data and of mixing."""
        mixing = mixing_in_words(self.mixup_alpha, self.cutmix_alpha, self.mix_prob, self.mix_off_epochs)
        return super().explain(trainer) | {"mixing": mixing}

    # On the device

    def on_after_batch_transfer(self, batch: RawBatch, dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Augment, normalise and mix; see the class for shapes."""
        if isinstance(batch, Tensor):  # the example of Lightning's model summary, as the network gets it
            return batch
        images, targets = self._mix(self.augment_and_normalise(batch), batch)
        if self.trainer is not None:  # Lightning casts a batch before this hook, which makes the images
            images = self.trainer.precision_plugin.convert_input(images)
        return images, targets

    def _mix(self, images: Tensor, batch: RawBatch) -> tuple[Tensor, Tensor]:
        mixing = batch.mixing or self._draw_mixing(batch.epoch, batch.number, len(images))
        return (images, batch.targets) if mixing is None else mix(images, batch.targets, self.num_classes, mixing)

    def _draw_mixing(self, epoch: int | None, number: int, size: int) -> Mixing | None:
        """Of the batch of this number and size; ``None`` if it is not mixed."""
        if epoch is None or not self._mixes(epoch):
            return None
        draws = Stream.MIX, self.seed, epoch, number
        # All ranks mix, or none does: what they log would not match otherwise, and they would wait for each other.
        if generator(*draws, 0).random() >= self.mix_prob:
            return None
        return draw_mixing(size, generator(*draws, self._shard[0]), self.mixup_alpha, self.cutmix_alpha)

    def _mixes(self, epoch: int) -> bool:
        if self.mixup_alpha == self.cutmix_alpha == 0:
            return False
        if not self.mix_off_epochs or self.trainer is None or self.trainer.max_epochs is None:
            return True
        return epoch < self.trainer.max_epochs - self.mix_off_epochs


def _ends_with_an_epoch(trainer: L.Trainer | None) -> bool:
    """Whether the number of epochs alone ends the fit; one of ``fast_dev_run`` has a step of any."""
    if trainer is None or (trainer.max_epochs or -1) < 0:
        return False
    return trainer.max_steps < 0 or bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
