"""What all image DataModules share: the position in training, loaders and workers, sharding over ranks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from typing import Any, Literal
from weakref import WeakSet

import torch
import torch.distributed as dist
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from datamodules.pipeline.allocator import keep_freed_memory
from datamodules.pipeline.batches import BatchIndices, Loader, evaluation_batches, training_batches, training_steps
from datamodules.pipeline.choices import check_choice
from datamodules.pipeline.internals import shift_restored_batches

Part = Literal["train", "val", "test"]


class ResumableData(LightningDataModule, ABC):
    """Images in a training, a validation and a test part, whatever their targets are.

    What happens to an image is a function of (seed, epoch, its index), the order of (seed, epoch). The test part is
    read by ``test`` alone.

    Args:
        batch_size: images in a batch of one rank. An epoch is cut into batches whose sizes differ by at most one, none
            of them above this number except where a batch of a single image would be left (see
            :func:`~datamodules.pipeline.batches.training_steps`).
        eval_batch_size: images in a batch of validation and test (default: ``batch_size``).
        num_workers: processes that make batches ahead of time.
        seed: of all random numbers, together with epoch and index.
        allow_changed_data: let a run that is resumed go on though its training images have changed. Otherwise it is
            refused.
        equal_batches: make all training batches of exactly ``batch_size`` images, as compiled and captured networks
            need them. What is left of an epoch is left out: fewer than ``batch_size`` images for each rank, others in
            every epoch, since each has an order of its own.
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
        batch_size: int,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        allow_changed_data: bool = False,
        equal_batches: bool = False,
    ) -> None:
        super().__init__()
        for name, size in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if size is not None and size < 1:
                raise MisconfigurationException(f"{name} is {size}; give at least 1.")
        for name, count in (("num_workers", num_workers), ("seed", seed)):
            if count < 0:
                raise MisconfigurationException(f"{name} is {count}; give 0 or more.")
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.allow_changed_data = allow_changed_data
        self.equal_batches = equal_batches
        self._epoch = self._images_done = self._began_at = 0
        self._trained_before: str | None = None
        self._loaders: WeakSet[Any] = WeakSet()

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
    def fetcher(self, test: bool) -> Callable[[BatchIndices], Any]:
        """What reads a batch, maybe in a worker process: it has to survive pickling."""

    @property
    @abstractmethod
    def split(self) -> tuple[Tensor, Tensor]:
        """Indices of the training and of the validation images, int64."""

    @abstractmethod
    def test_images(self) -> int:
        """Number of test images."""

    @abstractmethod
    def fingerprint(self, test: bool) -> str:
        """A name for the content of the training or the test part: equal for equal data, wherever it lies."""

    @abstractmethod
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> tuple[Any, Any]:
        """The rest of the work, on the device."""

    # Splits and loaders

    @property
    def _training_images(self) -> int:
        """Number of images that an epoch trains on."""
        return len(self.split[0])

    def setup(self, stage: str) -> None:
        """Check what only a run can know."""
        keep_freed_memory()
        train, _ = self.split
        _, world_size = self._shard
        if stage == "fit" and len(train) < world_size:
            raise MisconfigurationException(f"{len(train)} training images are too few for {world_size} ranks.")
        if stage == "fit" and not self._steps(len(train)):
            raise MisconfigurationException(
                f"{len(train)} training images don't fill one batch of {self.batch_size} on {world_size} ranks, and"
                " data.equal_batches leaves out whatever doesn't: lower data.batch_size, or set it to false"
            )

    def train_dataloader(self) -> Any:
        """Batches of the current epoch from the current position on."""
        return self._training_loader(self._next_position)

    def val_dataloader(self) -> Any:
        """This rank's share of the validation images; no loader if there are none."""
        _, val = self.split
        return self._evaluation_loader(val, test=False) if len(val) else []

    def test_dataloader(self) -> Any:
        """This rank's share of the test images."""
        return self._evaluation_loader(torch.arange(self.test_images()), test=True)

    def predict_dataloader(self) -> Any:
        """The test images, in order."""
        return self.test_dataloader()

    def batches(
        self, part: Part, epoch: int = 0, device: torch.device | str | None = None
    ) -> Iterator[tuple[Any, Any]]:
        """The batches of one epoch for a training loop without a Trainer, plain or in Fabric.

        They are the batches that ``Trainer.fit`` would give the model in that epoch: in its order, augmented,
        normalised and mixed. In an initialised process group each rank gets its share; there, call ``prepare_data`` on
        one rank first if the data set has yet to be downloaded.

        Example::

            data = Photos("my/photos", image_size=96)
            for epoch in range(10):
                for images, targets in data.batches("train", epoch, device="cuda"):
                    loss = cross_entropy(net(images), targets)

        Args:
            part: ``"train"``, ``"val"`` or ``"test"``.
            epoch: of the order and the random draws of ``"train"``; the other parts are the same in every epoch.
            device: where the batches are wanted (default: the CPU).

        Yields:
            What ``on_after_batch_transfer`` returns: images float32 (N, C, H, W) and targets.
        """
        check_choice("part", part, Part)
        if self._shard[1] == 1:
            self.prepare_data()
        if part == "train":
            loader = self._training_loader(lambda: (epoch, 0))
        else:
            loader = self.val_dataloader() if part == "val" else self.test_dataloader()
        try:
            for batch in loader:
                if device is not None:
                    batch = move_data_to_device(batch, torch.device(device))
                yield self.on_after_batch_transfer(batch, 0)
        finally:
            if not isinstance(loader, list):
                loader.close()

    def _training_loader(self, position: Callable[[], tuple[int, int]]) -> Any:
        length = self._batches_before(self._training_images)
        return self._loader(partial(self._training_batches, position), length)

    def _evaluation_loader(self, indices: Tensor, test: bool) -> Loader:
        batches = evaluation_batches(indices, self.eval_batch_size, *self._shard)
        return self._loader(lambda: batches, len(batches), test)

    def _loader(self, batches: Callable[[], Iterable[BatchIndices]], length: int, test: bool = False) -> Loader:
        pin = self.on_gpu and not self.on_device
        return self._opened(Loader(batches, self.fetcher(test), length, self.num_workers, pin))

    @property
    def on_gpu(self) -> bool:
        """Whether batches are copied to a GPU, for which they lie in pinned memory."""
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def _opened(self, loader: Any) -> Any:
        """Remember a loader, whose workers :meth:`teardown` ends."""
        self._loaders.add(loader)
        return loader

    def hurry(self, give_up: Callable[[], Any]) -> None:
        """Before the process has to leave: wait for a batch of the workers seconds, not minutes.

        Args:
            give_up: is called where none comes, and raises.
        """
        for loader in self._loaders:
            loader.hurry(give_up)

    def teardown(self, stage: str) -> None:
        """End the worker processes."""
        for loader in self._loaders:
            loader.close()

    def on_exception(self, exception: BaseException) -> None:
        """End the worker processes."""
        self.teardown("")

    @property
    def _shard(self) -> tuple[int, int]:
        """Rank and world size."""
        if self.trainer is not None:
            return self.trainer.global_rank, self.trainer.world_size
        if dist.is_available() and dist.is_initialized():
            return dist.get_rank(), dist.get_world_size()
        return 0, 1

    # The position in training

    def _training_batches(self, position: Callable[[], tuple[int, int]]) -> Iterator[BatchIndices]:
        epoch, images_done = position()
        # Overfitting a few batches means the same ones in every epoch.
        overfit = self.trainer is not None and self.trainer.overfit_batches  # type: ignore[attr-defined]
        order = 0 if overfit else epoch
        train, _ = self.split
        shape = *self._shard, self.equal_batches
        for batch in training_batches(train, self.batch_size, self.seed, order, images_done, *shape):
            yield batch._replace(epoch=epoch)

    def _next_position(self) -> tuple[int, int]:
        """The epoch that is iterated over from now on, and how many of its images have been trained on."""
        if self.trainer is not None and self.trainer.current_epoch != self._epoch:
            self._epoch, self._images_done = self.trainer.current_epoch, 0
        self._began_at = self._images_done
        # A second pass over an epoch, without a checkpoint loaded in between, starts at its beginning.
        self._images_done = 0
        return self._epoch, self._began_at

    def _batches_before(self, images: int) -> int:
        """Number of the batch that begins after the first ``images`` images of an epoch."""
        size = self._training_images
        return self._steps(size) - (self._steps(size - images) if images < size else 0)

    def _steps(self, images: int) -> int:
        """Number of batches that ``images`` images are cut into."""
        return training_steps(images, self.batch_size, self._shard[1], self.equal_batches)

    def _images_before(self, batch: int) -> int:
        """Number of images in an epoch before the batch of this number; the inverse of :meth:`_batches_before`."""
        size = self._training_images
        number, images = self._batches_before(self._began_at), self._began_at
        if batch <= number:
            return images if batch == number else 0
        if self.equal_batches:
            return images + (batch - number) * self.batch_size * self._shard[1]
        smaller, larger = divmod(size - images, self._batches_before(size) - number)
        return images + (batch - number) * smaller + min(batch - number, larger)

    @cached_property
    def _training_fingerprint(self) -> str:
        return self.fingerprint(test=False)

    def state_dict(self) -> dict[str, Any]:
        """The epoch; how much of it has been trained on, in batches (``offset``) and in images of all ranks
        (``images``); the fingerprint of the training images (``data``), and the one before they last changed
        (``data_before``).
        """
        state: dict[str, Any] = {"data": self._training_fingerprint, "data_before": self._trained_before}
        if self.trainer is None:
            done = self._images_done
            return state | {"epoch": self._epoch, "offset": self._batches_before(done), "images": done}
        # Lightning's own count, so that the two agree on what is left whenever the checkpoint is written.
        epochs: Any = self.trainer.fit_loop.epoch_progress.current
        batches: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        offset = batches.processed if epochs.started > epochs.processed else 0
        return state | {"epoch": epochs.processed, "offset": offset, "images": self._images_before(offset)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there.

        Raises:
            MisconfigurationException: the training images are others than before.
        """
        if self.trainer is not None and self.trainer.state.fn != TrainerFn.FITTING:
            return
        self._trained_before = state_dict.get("data_before")
        self._check_data(state_dict.get("data"))
        self._epoch, self._began_at = state_dict["epoch"], 0
        # Checkpoints before there was a count of images have the count of batches, of the batch size of now.
        images = state_dict.get("images", self._images_before(state_dict["offset"]))
        self._images_done = self._began_at = min(images, self._training_images)
        offset = self._batches_before(self._images_done)
        if self.trainer is not None and offset != state_dict["offset"]:
            shift_restored_batches(self.trainer, offset - state_dict["offset"])

    def _check_data(self, before: str | None) -> None:
        if before is None or before == self._training_fingerprint:
            return
        if not self.allow_changed_data:
            raise MisconfigurationException(
                f"the training images have changed since this run was saved (their fingerprint was {before}, and is"
                f" {self._training_fingerprint} now): restore them, or set data.allow_changed_data to true to go on"
            )
        self._trained_before = before

    def report(self) -> dict[str, Any]:
        """The summary's entries about the training part or, in a test, the test part."""
        train, val = self.split
        testing = self.trainer is not None and self.trainer.state.fn in ("test", "predict")
        return {
            "train_images": len(train),
            "val_images": len(val),
            "data": type(self).__qualname__,
            "classes": self.num_classes,
            "data_fingerprint": self.fingerprint(test=True) if testing else self._training_fingerprint,
            **({"data_fingerprint_before": self._trained_before} if self._trained_before else {}),
        }

    def explain(self, trainer: Any) -> dict[str, str]:
        """What ``fathom explain`` says of the data."""
        train, _ = self.split
        return {
            "data": f"{type(self).__name__}, {len(train):,} training images of {self.image_size} pixels,"
            f" {self.num_classes} classes{f', batches of exactly {self.batch_size}' if self.equal_batches else ''}",
        }


def check_std(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """``mean`` and ``std`` themselves.

    Raises:
        MisconfigurationException: a channel has no variance, so that normalising it would divide by zero.
    """
    for channel, (level, deviation) in enumerate(zip(mean, std, strict=True)):
        if not deviation > 1e-6:
            raise MisconfigurationException(
                f"channel {channel} of the training images is {255 * level:.4g} everywhere, so it can't be scaled to"
                " unit variance: check the images, or give data.mean and data.std"
            )
    return mean, std
