"""Photos from shards on a disk or in object storage, read by litdata."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import fsspec
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import default_collate

from datamodules.photos import PHOTO_DRAWS, Photos
from datamodules.pipeline.allocator import keep_freed_memory
from datamodules.pipeline.batches import leave_signals_to_parent
from datamodules.pipeline.fingerprint import fingerprint
from datamodules.pipeline.image_data import ImageData, RawBatch
from datamodules.pipeline.randomness import uniforms

DESCRIPTION = "description.json"


class PhotoStream(Photos):
    """What ``fathom shard`` wrote, from a folder or a bucket's URL; needs the extra ``stream``.

    Crops, flips and mixing are named by (seed, epoch, index) as everywhere else. The order is litdata's own, a function
    of seed, epoch, ranks and workers, and so is the sharding: in training it drops what does not fill a batch of
    every worker. An epoch that is resumed goes on from the same batch if ranks and workers are as many.

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
        self.root = root.rstrip("/")
        super().__init__(root, **options)

    def _open(self, root: str) -> None:
        try:
            with fsspec.open(f"{self.root}/{DESCRIPTION}", "rt") as file:
                self.description = json.load(file)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{self.root} has no {DESCRIPTION}; write the shards with `fathom shard SOURCE {self.root}`."
            ) from error
        self.class_names = self.description["class_names"]

    @property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return tuple(self.description["mean"]), tuple(self.description["std"])

    def setup(self, stage: str) -> None:
        """Nothing to check: the shards were checked when they were written."""
        keep_freed_memory()

    def report(self) -> dict[str, Any]:
        """What the summary says of the data."""
        images = {f"{part}_images": count for part, count in self.description["images"].items()}
        return {**images, "data": type(self).__qualname__, "data_fingerprint": self.fingerprint(test=False)}

    def fingerprint(self, test: bool) -> str:
        """Of the description that was written with the shards; both parts have the same."""
        return fingerprint([json.dumps(self.description, sort_keys=True)])

    def train_dataloader(self) -> Any:
        """Batches in litdata's order, from the current position on."""
        return _TrainingStream(self)

    def val_dataloader(self) -> Any:
        """This rank's share of the validation images."""
        return _EvaluationStream(self, "val") if self.description["images"]["val"] else []

    def test_dataloader(self) -> Any:
        """This rank's share of the test images."""
        if not self.description["images"]["test"]:
            raise MisconfigurationException(f"{self.root} has no test part.")
        return _EvaluationStream(self, "test")

    def sample_loader(self, images: int, skip: int = 0) -> Any:
        """Shards are read from their beginning."""
        raise MisconfigurationException(
            f"{self.root} holds shards, which can't be sampled: give the folder of photos they were made from "
            "(--data datamodules.Photos)."
        )


class _EvaluationStream:
    """Every image of this rank once. It has no length: workers may end with unequal numbers of batches."""

    def __init__(self, data: PhotoStream, part: str) -> None:
        _, self._transform = data._transforms()
        self._loader = _loader(data, part, self._item, data.eval_batch_size, shuffle=False)

    def __iter__(self) -> Iterator[RawBatch]:
        for number, (images, labels) in enumerate(self._loader):
            yield RawBatch(images, labels, None, None, number)

    def _item(self, item: dict[str, Any]) -> tuple[Tensor, int]:
        return self._transform(bytes(item["image"]), bytes(item["name"]).decode()), item["label"]


class _TrainingStream:
    """One epoch after another, each from the position that the DataModule says."""

    def __init__(self, data: PhotoStream) -> None:
        self._data = data
        transform, _ = data._transforms()
        self._item = _TrainingItem(transform, data.seed)
        self._loader = _loader(data, "train", self._item, data.batch_size, shuffle=True)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[RawBatch]:
        epoch, offset = self._data._next_position()
        self._item.epoch = epoch
        # litdata counts from 1, and up when it starts. What was trained on is read once more and passed over: its own
        # way to go on in mid-epoch came to a halt with two workers.
        self._loader.current_epoch = epoch
        batches = enumerate(self._loader)
        for number, (images, labels, draws) in islice(batches, offset, None):
            yield RawBatch(images, labels, draws, epoch, number)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the position is the DataModule's. Lightning warns without this."""
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
            bytes(item["image"]), bytes(item["name"]).decode(), draws=draws.numpy(), epoch=self.epoch, index=index
        )
        return image, item["label"], draws


def _loader(data: PhotoStream, part: str, item: Callable[..., Any], batch_size: int, shuffle: bool) -> Any:
    try:
        from litdata import StreamingDataLoader, StreamingDataset
    except ModuleNotFoundError as error:
        raise MisconfigurationException("Reading shards needs litdata: pip install 'fathom[stream]'.") from error
    dataset = StreamingDataset(
        f"{data.root}/{part}", shuffle=shuffle, seed=data.seed, drop_last=shuffle, transform=item
    )
    return StreamingDataLoader(
        dataset,
        batch_size=batch_size,
        num_workers=data.num_workers,
        collate_fn=default_collate,
        worker_init_fn=leave_signals_to_parent,
    )
