"""What the image DataModules share: splits, the position in training, sharding over ranks, mixup and
CutMix.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from datamodules.pipeline.allocator import keep_freed_memory
from datamodules.pipeline.batches import Loader, Ticket, evaluation_tickets, training_steps, training_tickets
from datamodules.pipeline.fingerprint import fingerprint
from datamodules.pipeline.mixing import mix, mixing_in_words
from datamodules.pipeline.randomness import Stream, generator
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


class ImageData(LightningDataModule, ABC):
    """Images with one label each, in a training, a validation and a test part.

    A batch is ``(images, targets)`` after ``on_after_batch_transfer``: images (N, C, H, W),
    normalised, channels_last in memory, float32 unless the trainer's precision is a
    ``-true`` one; targets int64 (N,), or float32 (N, K) where mixed.

    The validation part is cut from the training images, by class, the same one for every seed. The test
    part is read by ``test`` alone. What happens to an image is a function of (seed, epoch, its index), the
    order of (seed, epoch), mixing of (seed, epoch, batch, rank).

    Args:
        batch_size: images in a batch of one rank, at most: an epoch is cut into batches whose sizes differ
            by one.
        eval_batch_size: the same for validation and test; ``batch_size`` where not given.
        val_fraction: share of the training images that is held out for validation; 0 validates on nothing.
        train_fraction: share of the rest to train on, by class; a smaller one lies within a larger one.
        train_size: their number instead.
        mixup_alpha: α of mixup's Beta(α, α); 0 is no mixup.
        cutmix_alpha: α of CutMix's Beta(α, α); 0 is no CutMix. With both, each batch takes one of them at
            random.
        mix_prob: probability that a batch is mixed.
        mix_off_epochs: the last epochs, which are not mixed.
        num_workers: processes that make batches ahead of time.
        seed: names all random numbers, with epoch and index.
    """

    num_classes: int
    in_channels: int
    on_device = False
    """Whether batches come from the device's memory already."""
    image_size: int
    """Side in pixels of what the network gets."""
    class_names: list[str]
    # A rank may have nothing to evaluate where there are fewer images than ranks.
    allow_zero_length_dataloader_with_multiple_devices = True

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
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if value is not None and value < 1:
                raise MisconfigurationException(f"{name} is {value}; give at least 1.")
        for name, alpha in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha)):
            if alpha < 0:
                raise MisconfigurationException(f"{name} is {alpha}; give 0 (off) or a positive number.")
        if not 0 <= mix_prob <= 1:
            raise MisconfigurationException(f"mix_prob is {mix_prob}; give a probability, from 0 to 1.")
        for name, count in (("num_workers", num_workers), ("mix_off_epochs", mix_off_epochs), ("seed", seed)):
            if count < 0:
                raise MisconfigurationException(f"{name} is {count}; give 0 or more.")
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.val_fraction = val_fraction
        self.train_fraction = train_fraction
        self.train_size = train_size
        self.mixup_alpha = mixup_alpha
        self.cutmix_alpha = cutmix_alpha
        self.mix_prob = mix_prob
        self.mix_off_epochs = mix_off_epochs
        self.num_workers = num_workers
        self.seed = seed
        self._epoch = self._offset = 0

    # What a data set says

    @property
    @abstractmethod
    def mean(self) -> tuple[float, ...]:
        """Per channel, of images in [0, 1]."""

    @property
    @abstractmethod
    def std(self) -> tuple[float, ...]:
        """Per channel, of images in [0, 1]."""

    @abstractmethod
    def labels(self, test: bool) -> Tensor:
        """int64 (N,), of the training images (validation part included) or of the test images."""

    @abstractmethod
    def fetcher(self, test: bool) -> Callable[[Ticket], RawBatch]:
        """What makes a batch, maybe in a worker process: it has to survive pickling."""

    @abstractmethod
    def finish(self, batch: RawBatch) -> Tensor:
        """Augment and normalise on the device: float32 (N, C, H, W), channels_last."""

    # Splits and loaders

    @cached_property
    def split(self) -> tuple[Tensor, Tensor]:
        """Indices of the training and of the validation images."""
        return split(self.labels(test=False), self.val_fraction, self.train_fraction, self.train_size)

    def setup(self, stage: str) -> None:
        """Check what only a run can know."""
        keep_freed_memory()
        if stage == "fit" and self.mix_off_epochs and (self.trainer is None or (self.trainer.max_epochs or -1) < 0):
            raise MisconfigurationException(
                f"mix_off_epochs={self.mix_off_epochs} counts from the end: set trainer.max_epochs."
            )
        train, _ = self.split
        _, world_size = self._shard
        labels = self.labels(test=stage == "test")
        if labels.min() < 0 or labels.max() >= self.num_classes:
            raise MisconfigurationException(
                f"The labels run from {labels.min()} to {labels.max()}, but there are {self.num_classes} classes, "
                f"whose labels are 0 to {self.num_classes - 1}."
            )
        if stage == "fit" and len(train) < world_size:
            raise MisconfigurationException(f"{len(train)} training images are too few for {world_size} ranks.")

    def train_dataloader(self) -> Loader:
        """Batches of the current epoch from the current position on."""
        train, _ = self.split
        return self._loader(self._training_tickets, training_steps(len(train), self.batch_size, self._shard[1]))

    def val_dataloader(self) -> Loader | list[Loader]:
        """This rank's share of the validation images; no loader where ``val_fraction`` is 0."""
        _, val = self.split
        return self._evaluation_loader(val, test=False) if len(val) else []

    def test_dataloader(self) -> Loader:
        """This rank's share of the test images."""
        return self._evaluation_loader(torch.arange(len(self.labels(test=True))), test=True)

    def predict_dataloader(self) -> Loader:
        """The test images, in order."""
        return self.test_dataloader()

    def sample_loader(self, images: int, skip: int = 0) -> Loader:
        """``images`` test images after the first ``skip``, in a fixed order that holds the classes in their proportions
        throughout.
        """
        return self._evaluation_loader(stratified_order(self.labels(test=True))[skip : skip + images], test=True)

    def _evaluation_loader(self, indices: Tensor, test: bool) -> Loader:
        tickets = evaluation_tickets(indices, self.eval_batch_size, *self._shard)
        return self._loader(lambda: tickets, len(tickets), test)

    def _loader(self, tickets: Callable[[], Iterable[Ticket]], length: int, test: bool = False) -> Loader:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return Loader(tickets, self.fetcher(test), length, self.num_workers, pin=on_gpu and not self.on_device)

    @property
    def _shard(self) -> tuple[int, int]:
        """Rank and world size."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    # The position in training

    def _training_tickets(self) -> Iterator[Ticket]:
        epoch, offset = self._next_position()
        # Overfitting a few batches means the same ones in every epoch.
        overfit = self.trainer is not None and self.trainer.overfit_batches  # type: ignore[attr-defined]
        order = 0 if overfit else epoch
        train, _ = self.split
        for ticket in training_tickets(train, self.batch_size, self.seed, order, offset, *self._shard):
            yield ticket._replace(epoch=epoch)

    def _next_position(self) -> tuple[int, int]:
        """Epoch and offset at which the iteration that starts now begins."""
        if self.trainer is not None and self.trainer.current_epoch != self._epoch:
            self._epoch, self._offset = self.trainer.current_epoch, 0
        epoch, offset = self._epoch, self._offset
        # A second pass over an epoch, without a checkpoint loaded in between, starts at its beginning.
        self._offset = 0
        return epoch, offset

    def state_dict(self) -> dict[str, int]:
        """``epoch``, and ``offset``: how many of its batches have been trained on."""
        if self.trainer is None:
            return {"epoch": self._epoch, "offset": self._offset}
        # Lightning's own count, so that the two agree on what is left whenever the checkpoint is written.
        epochs: Any = self.trainer.fit_loop.epoch_progress.current
        batches: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        running = epochs.started > epochs.processed
        return {"epoch": epochs.processed, "offset": batches.processed if running else 0}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on from there."""
        self._epoch, self._offset = state_dict["epoch"], state_dict["offset"]

    def fingerprint(self, test: bool) -> str:
        """A name for the content of the training or the test part: equal for equal data, wherever it lies."""
        return fingerprint(self.labels(test))

    def report(self) -> dict[str, Any]:
        """What the summary says of the data, the training part or, in a test, the test part."""
        train, val = self.split
        testing = self.trainer is not None and self.trainer.state.fn in ("test", "predict")
        return {
            "train_images": len(train),
            "val_images": len(val),
            "data": type(self).__qualname__,
            "data_fingerprint": self.fingerprint(test=testing),
        }

    def explain(self, trainer: Any) -> dict[str, str]:
        """What ``fathom explain`` says of the data and of mixing."""
        train, _ = self.split
        return {
            "data": f"{type(self).__name__}, {len(train):,} training images of {self.image_size} pixels,"
            f" {self.num_classes} classes",
            "mixing": mixing_in_words(self.mixup_alpha, self.cutmix_alpha, self.mix_prob, self.mix_off_epochs),
        }

    # On the device

    def on_after_batch_transfer(self, batch: RawBatch, dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Augment, normalise and mix; see the class for shapes."""
        images, targets = self._mix(self.finish(batch), batch)
        if self.trainer is not None:  # Lightning casts a batch before this hook, which makes the images
            images = self.trainer.precision_plugin.convert_input(images)
        return images, targets

    def _mix(self, images: Tensor, batch: RawBatch) -> tuple[Tensor, Tensor]:
        if batch.epoch is None or not self._mixes(batch.epoch):
            return images, batch.targets
        draws = Stream.MIX, self.seed, batch.epoch, batch.number
        # All ranks mix, or none does: what they log would not match otherwise, and they would wait for each other.
        if generator(*draws, 0).random() >= self.mix_prob:
            return images, batch.targets
        rng = generator(*draws, self._shard[0])
        return mix(images, batch.targets, self.num_classes, rng, self.mixup_alpha, self.cutmix_alpha)

    def _mixes(self, epoch: int) -> bool:
        if self.mixup_alpha == self.cutmix_alpha == 0:
            return False
        if not self.mix_off_epochs or self.trainer is None or self.trainer.max_epochs is None:
            return True
        return epoch < self.trainer.max_epochs - self.mix_off_epochs
