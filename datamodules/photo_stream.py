"""Photos from shards on a disk or in object storage, read by litdata."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import default_collate

from datamodules.photos import PHOTO_DRAWS, Photos
from datamodules.pipeline.allocator import keep_freed_memory
from datamodules.pipeline.batches import BatchIndices
from datamodules.pipeline.cache import cache_dir, size_limit
from datamodules.pipeline.fingerprint import fingerprint
from datamodules.pipeline.image_data import ImageData, RawBatch
from datamodules.pipeline.internals import OwnedWorkers
from datamodules.pipeline.randomness import uniforms
from datamodules.pipeline.shards import check_index, read_description

SCHEMES = ("s3", "gs", "hf", "local")
"""Of URLs that both litdata and fsspec read; ``local`` is a slow disk, read through the cache."""


class PhotoStream(Photos):
    """What ``fathom shard`` wrote, from a folder or a bucket's URL; needs the extra ``stream``.

    Crops, flips and mixing are functions of (seed, epoch, index) as in all data sets. The order of training is
    litdata's own, a function of seed, epoch, ranks and workers, and so is the sharding: it drops what does not fill a
    batch of every worker. An epoch is therefore resumed only with the batch size, ranks and workers it began with.

    Args:
        root: folder or URL, such as ``s3://bucket/imagenet``.
        **options: see :class:`~datamodules.photos.Photos`; the parts are fixed when the shards are written, so
            ``val_fraction``, ``train_fraction`` and ``train_size`` cannot be given, nor is a broken file skipped.
    """

    def __init__(self, root: Annotated[str, Path], **options: Any) -> None:
        # The command line also hands over what was left at its default.
        defaults = {
            name: parameter.default
            for kind in (ImageData, Photos)
            for name, parameter in inspect.signature(kind).parameters.items()
        }
        fixed = ("val_fraction", "train_fraction", "train_size", "corrupt")
        if given := [name for name in fixed if options.get(name, defaults[name]) != defaults[name]]:
            raise MisconfigurationException(
                f"{', '.join(given)} can't be set for shards, whose parts were fixed when `fathom shard` wrote {root}:"
                " leave it out"
            )
        scheme, is_url, _ = root.partition("://")
        if is_url and scheme not in SCHEMES:
            raise MisconfigurationException(
                f"shards are not read from {root}: give a folder, or a URL with {', '.join(SCHEMES)} before ://"
            )
        self.root = root.rstrip("/")
        super().__init__(root, **options)

    @cached_property
    def split(self) -> tuple[Tensor, Tensor]:
        """Indices of the training and of the validation images, each in shards of their own."""
        images = self.description["images"]
        return torch.arange(images["train"]), torch.arange(images["val"])

    def _open(self, root: str) -> None:
        self.description = read_description(self.root)
        self.class_names = self.description["class_names"]

    @property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return tuple(self.description["mean"]), tuple(self.description["std"])

    def setup(self, stage: str) -> None:
        """Check what only a run can know; the images were checked when the shards were written."""
        keep_freed_memory()
        if stage == "fit" and not self._batches_before(self._training_images):
            raise MisconfigurationException(
                f"{self._training_images} training images don't fill one batch of {self.batch_size} on"
                f" {self._shard[1]} ranks, and what doesn't is left out of a stream: lower data.batch_size"
            )

    def report(self) -> dict[str, Any]:
        """The summary's entries about the data."""
        images = {f"{part}_images": count for part, count in self.description["images"].items()}
        return {**images, "data": type(self).__qualname__, "data_fingerprint": self._training_fingerprint}

    def fingerprint(self, test: bool) -> str:
        """Hash of the description that was written with the shards, which covers both parts."""
        return fingerprint([json.dumps(self.description, sort_keys=True)])

    def _training_loader(self, position: Callable[[], tuple[int, int]]) -> Any:
        return self._opened(_TrainingStream(self, position))

    def test_dataloader(self) -> Any:
        """This rank's share of the test images."""
        if not self.description["images"]["test"]:
            raise MisconfigurationException(f"{self.root} has no test part.")
        return self._evaluation_loader(torch.arange(self.description["images"]["test"]), test=True)

    def labels(self, test: bool) -> Tensor:
        """Shards do not say which image is of which class."""
        raise MisconfigurationException(
            f"{self.root} holds shards, which can't be sampled: give the folder of photos they were made from "
            "(--data datamodules.Photos)."
        )

    def fetcher(self, test: bool) -> Callable[[BatchIndices], RawBatch]:
        """Decode and crop images of the test or the validation part."""
        _, transform = self._transforms()
        return partial(_fetch, _shards(self, "test" if test else "val"), transform)

    def _batches_before(self, images: int) -> int:
        return images // (self.batch_size * self._shard[1])

    def _images_before(self, batch: int) -> int:
        return batch * self.batch_size * self._shard[1]

    @property
    def _order_depends_on(self) -> list[int]:
        return [self.batch_size, self._shard[1], self.num_workers]

    def state_dict(self) -> dict[str, Any]:
        """See :class:`~datamodules.pipeline.image_data.ImageData`; and what litdata's order depends on (``order``)."""
        return super().state_dict() | {"order": self._order_depends_on}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there.

        Raises:
            MisconfigurationException: the shards are others than before, or the position is in mid-epoch and the order
                of the images would be another.
        """
        now = self._order_depends_on
        before = state_dict.get("order", now)
        if state_dict["offset"] and before != now:
            raise MisconfigurationException(
                f"this run was saved in mid-epoch with batch_size {before[0]}, {before[1]} ranks and {before[2]}"
                f" workers, on which the order of the stream depends: go on with these, not with batch_size {now[0]},"
                f" {now[1]} ranks and {now[2]} workers"
            )
        super().load_state_dict(state_dict)


class _TrainingStream:
    """One epoch after another, each from the position that the DataModule says."""

    def __init__(self, data: PhotoStream, position: Callable[[], tuple[int, int]]) -> None:
        self._position, self._batches_before = position, data._batches_before
        transform, _ = data._transforms()
        self._item = _TrainingItem(transform, data.seed)
        self._loader = _stream(data, self._item)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[RawBatch]:
        epoch, images_done = self._position()
        self._item.epoch = epoch
        # litdata counts from 1, and up when it starts. What was trained on is read once more and passed over: its own
        # way to go on in mid-epoch came to a halt with two workers.
        self._loader.current_epoch = epoch
        batches = enumerate(self._loader.batches())
        for number, (images, labels, draws) in islice(batches, self._batches_before(images_done), None):
            yield RawBatch(images, labels, draws, epoch, number)

    def hurry(self, give_up: Callable[[], Any]) -> None:
        """See :meth:`~datamodules.pipeline.internals.OwnedWorkers.hurry`."""
        self._loader.hurry(give_up)

    def close(self) -> None:
        """End the worker processes."""
        self._loader.end_workers()

    def __del__(self) -> None:
        if hasattr(self, "_loader"):
            self.close()

    def state_dict(self) -> dict[str, Any]:
        """Empty: the position is the DataModule's. Lightning warns if there is no such method."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to load."""


class _TrainingItem:
    def __init__(self, transform: Callable[..., Tensor], seed: int) -> None:
        self.transform, self.seed, self.epoch = transform, seed, 0

    def __call__(self, item: dict[str, Any]) -> tuple[Tensor, int, Tensor]:
        index = item["index"]
        draws = uniforms(self.seed, self.epoch, torch.tensor([index]), PHOTO_DRAWS)[0]
        image = self.transform(
            bytes(item["image"]), os.fsdecode(bytes(item["name"])), draws=draws.numpy(), epoch=self.epoch, index=index
        )
        return image, item["label"], draws


def _fetch(shards: Any, transform: Callable[..., Tensor], batch: BatchIndices) -> RawBatch:
    items = [shards[index] for index in batch.indices.tolist()]
    images = [transform(bytes(item["image"]), os.fsdecode(bytes(item["name"]))) for item in items]
    stacked = torch.stack(images) if images else torch.empty(0, 1, 1, 3, dtype=torch.uint8)
    labels = torch.tensor([item["label"] for item in items], dtype=torch.int64)
    return RawBatch(stacked, labels, None, None, batch.number)


def _shards(data: PhotoStream, part: str, **options: Any) -> Any:
    """litdata's data set of one part."""
    try:
        from litdata import StreamingDataset
    except ModuleNotFoundError as error:
        raise MisconfigurationException("Reading shards needs litdata: pip install 'fathom-depth[stream]'.") from error
    check_index(f"{data.root}/{part}")
    cache = str(cache_dir() / "shards") if "://" in data.root else None
    dataset = StreamingDataset(f"{data.root}/{part}", cache_dir=cache, **options)
    dataset.max_cache_size = int(size_limit())  # as an argument it warns of what is less than 25 GB
    return dataset


def _stream(data: PhotoStream, item: _TrainingItem) -> Any:
    dataset = _shards(data, "train", shuffle=True, seed=data.seed, drop_last=True, transform=item)
    from litdata import StreamingDataLoader

    class Stream(OwnedWorkers, StreamingDataLoader):  # type: ignore[misc]  # litdata has no types
        pass

    return Stream(
        dataset,
        batch_size=data.batch_size,
        num_workers=data.num_workers,
        collate_fn=default_collate,
        pin_memory=data.on_gpu,
    )
