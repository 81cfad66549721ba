"""Photos with boxes: Pascal VOC, COCO, and whatever has their layout."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from itertools import compress
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from datamodules.pipeline.batches import BatchIndices
from datamodules.pipeline.coco import read_coco
from datamodules.pipeline.decode import read_bytes
from datamodules.pipeline.fingerprint import fingerprint
from datamodules.pipeline.objects import Objects
from datamodules.pipeline.randomness import uniforms
from datamodules.pipeline.resizes import DETECTION_DRAWS, photo_with_boxes
from datamodules.pipeline.run_lengths import resized_mask
from datamodules.pipeline.scenes import Scenes, canvas
from datamodules.pipeline.voc import read_voc


class RawObjects(NamedTuple):
    """What a loader hands over, before the work that is done on the device."""

    images: Tensor
    """uint8 (N, H, W, 3), each photo at the top left."""
    extents: Tensor
    """int64 (N, 2): height and width of each photo on the canvas."""
    boxes: Tensor
    """int32 (B, 4): the bits of float32, which a ``-true`` precision would round otherwise."""
    labels: Tensor
    """int64 (B,)."""
    difficult: Tensor
    """bool (B,)."""
    counts: list[int]
    sizes: list[tuple[int, int]]
    original_sizes: list[tuple[int, int]]
    ids: list[int | str]
    areas: list[float]
    """Of the objects in the original images, in pixels."""
    run_lengths: list[str] | None
    """Of the masks, in the original images."""
    masks: Tensor | None
    """uint8 (B, H, W), in training."""


class ObjectDetection(Scenes):
    """Photos with boxes.

    A batch is ``(images, targets)`` after ``on_after_batch_transfer``: images (N, 3, H, W), normalised, channels_last,
    each at the top left of a canvas that is padded with 0. ``targets`` has, of all images one after another, ``boxes``
    float32 (B, 4), x1 y1 x2 y2 in pixels of the canvas, ``labels`` int64 (B,) from 0, and ``difficult`` bool (B,); and
    of each image, on the host, ``counts``, the number of its boxes, ``sizes``, its height and width on the canvas,
    ``original_sizes`` and ``ids``. Of each box there are on the host ``areas``, the object's pixels in the original
    image as COCO's annotations say them, otherwise those of the box; and with masks their ``run_lengths`` in that
    image, as COCO compresses them to a text. In training there are also ``masks`` uint8 (B, H, W), 1 in the object.

    The short side of a photo is resized to ``image_size`` unless the long side would exceed ``max_size``.

    Args:
        image_size: short side in pixels.
        max_size: limit on the long side.
        train_sizes: short sides of which one is drawn for each training image (default: ``image_size``).
        size_divisor: the sides of the canvas are multiples of it.
        **options: see :class:`~datamodules.pipeline.scenes.Scenes`.
    """

    train_on_difficult = True
    """Whether difficult objects are trained on; the score ignores them in any case."""
    masks = False
    """Whether objects have masks."""

    def __init__(
        self,
        image_size: int = 600,
        max_size: int = 1000,
        train_sizes: Sequence[int] = (),
        size_divisor: int = 32,
        **options: Any,
    ) -> None:
        super().__init__(image_size, **options)
        if (least := min(max_size, size_divisor, *train_sizes)) < 1:
            raise MisconfigurationException(f"max_size, train_sizes and size_divisor are lengths, but one is {least}.")
        self.max_size = max_size
        self.train_sizes = tuple(train_sizes)
        self.size_divisor = size_divisor

    @property
    @abstractmethod
    def training(self) -> list[Objects]:
        """The training part, and the validation part if there is one."""

    @property
    @abstractmethod
    def test(self) -> Objects:
        """The test part."""

    @property
    def category_ids(self) -> list[int]:
        """What COCO's files call the classes."""
        return self._training.category_ids

    def _part(self, test: bool) -> Objects:
        return self.test if test else self._training

    @cached_property
    def _training(self) -> Objects:
        first, *rest = self.training
        return sum(rest, start=first)

    @property
    def held_out(self) -> int:
        """Number of validation images, which stand behind those of training."""
        return sum(len(part.files) for part in self.training[1:])

    def files(self, test: bool) -> tuple[Path, list[str]]:
        """Root and files of a part."""
        part = self._part(test)
        return part.root, part.files

    def fingerprint(self, test: bool) -> str:
        """Hash of the names of the files, the sizes of the photos, and the objects; the photos are not read."""
        part = self._part(test)
        masks = [part.masks] if self.masks else []
        return fingerprint(part.files, part.sizes, part.counts, part.boxes, part.labels, part.difficult, *masks)

    def fetcher(self, test: bool) -> Callable[[BatchIndices], RawObjects]:
        """Decode, resize and mirror."""
        transform = partial(photo_with_boxes, long=self.max_size, flip=self.flip, max_pixels=self.max_pixels)
        shorts = self.train_sizes or (self.image_size,)
        train = partial(transform, shorts=shorts)
        evaluation = partial(transform, shorts=(self.image_size,))
        return partial(
            _fetch,
            self._part(test),
            train,
            evaluation,
            self.seed,
            self.size_divisor,
            self.train_on_difficult,
            self.masks,
        )

    def on_after_batch_transfer(self, batch: RawObjects, dataloader_idx: int) -> tuple[Tensor, dict[str, Any]]:
        """Normalise, and blank what lies beyond the photos; see the class for shapes."""
        # A DataLoader makes lists of tuples.
        sizes, originals = ([(height, width) for height, width in of] for of in (batch.sizes, batch.original_sizes))
        targets = {
            "boxes": batch.boxes.view(torch.float32),
            "labels": batch.labels,
            "difficult": batch.difficult,
            "counts": batch.counts,
            "sizes": sizes,
            "original_sizes": originals,
            "ids": batch.ids,
            "areas": batch.areas,
        }
        masks = {"run_lengths": batch.run_lengths, "masks": batch.masks}
        targets |= {name: value for name, value in masks.items() if value is not None}
        return self.on_canvas(batch.images, batch.extents), targets

    def report(self) -> dict[str, Any]:
        """The summary's entries about the data."""
        testing = self.trainer is not None and self.trainer.state.fn in ("test", "predict")
        part = self._part(testing)
        return {**super().report(), "objects": len(part.boxes), **part.remarks}


class VOCDetection(ObjectDetection):
    """Pascal VOC (Everingham et al. 2010) in its original layout, and any folder in this layout.

    Difficult objects are trained on and ignored in the score. All coordinates are lowered by 1, as VOC counts pixels
    from 1.

    Args:
        root: the folder of ``VOCdevkit/``, that folder, or one with ``JPEGImages/``, ``Annotations/`` and
            ``ImageSets/Main/``.
        train: image sets, which are joined: ``VOC2007/trainval`` is ``VOC2007/ImageSets/Main/trainval.txt``.
        val: image sets to validate on; with none there is no validation.
        test: image sets to test on.
        class_names: in the order of their labels (default: those that occur in training, in code-point order).
        **options: see :class:`ObjectDetection`.
    """

    def __init__(
        self,
        root: Annotated[str, Path],
        train: Sequence[str] = ("VOC2007/trainval", "VOC2012/trainval"),
        val: Sequence[str] = (),
        test: Sequence[str] = ("VOC2007/test",),
        class_names: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.root = root
        first = read_voc(root, train, class_names)
        self.class_names = first.class_names
        self.num_classes = len(self.class_names)
        self._parts = [first, *([read_voc(root, val, self.class_names)] if val else [])]
        self._test_sets = list(test)

    @property
    def training(self) -> list[Objects]:
        """The training part, and the validation part if there is one."""
        return self._parts

    @cached_property
    def test(self) -> Objects:
        """The test part."""
        return read_voc(self.root, self._test_sets, self.class_names)


class COCODetection(ObjectDetection):
    """COCO (Lin et al. 2014) in its original layout, and any data set in it.

    Crowds are not trained on, and ignored in the score: they are what is ``difficult``.

    Args:
        root: folder of the parts' folders of images and of ``annotations/``.
        train: the training part: ``train2017`` has its images in ``train2017/`` and its objects in
            ``annotations/instances_train2017.json``.
        val: the validation part; with none there is no validation.
        test: the test part.
        masks: read the masks of the objects too, which needs the extra ``detection``; objects without one are dropped
            and counted.
        image_size: short side in pixels.
        max_size: limit on the long side.
        **options: see :class:`ObjectDetection`.

    Raises:
        MisconfigurationException: for a part whose categories are not those of the training part.
    """

    train_on_difficult = False

    def __init__(
        self,
        root: Annotated[str, Path],
        train: str = "train2017",
        val: str | None = "val2017",
        test: str = "val2017",
        masks: bool = False,
        image_size: int = 800,
        max_size: int = 1333,
        **options: Any,
    ) -> None:
        super().__init__(image_size=image_size, max_size=max_size, **options)
        self.root = root
        self.masks = masks
        self._train_part, self._test_part = train, test
        self._parts = [self._read(train)]
        self.class_names = self._parts[0].class_names
        self.num_classes = len(self.class_names)
        if val:
            self._parts.append(self._read_like_training(val))

    def _read(self, part: str) -> Objects:
        return read_coco(self.root, part, _annotations(part), self.masks)

    def _read_like_training(self, part: str) -> Objects:
        objects, training = self._read(part), self._parts[0]
        # Labels are positions among the categories of a file.
        if (objects.category_ids, objects.class_names) != (training.category_ids, training.class_names):
            raise MisconfigurationException(
                f"{objects.root / _annotations(part)} has other categories than"
                f" {training.root / _annotations(self._train_part)}; list the same ones in both."
            )
        return objects

    @property
    def training(self) -> list[Objects]:
        """The training part, and the validation part if there is one."""
        return self._parts

    @cached_property
    def test(self) -> Objects:
        """The test part."""
        return self._read_like_training(self._test_part)


def _annotations(part: str) -> str:
    return f"annotations/instances_{part}.json"


def _fetch(
    objects: Objects,
    train: Callable[..., tuple[Tensor, Tensor, bool]],
    evaluation: Callable[..., tuple[Tensor, Tensor, bool]],
    seed: int,
    divisor: int,
    train_on_difficult: bool,
    with_masks: bool,
    batch: BatchIndices,
) -> RawObjects:
    indices, epoch = batch.indices, batch.epoch
    draws = None if epoch is None else uniforms(seed, epoch, indices, DETECTION_DRAWS).numpy()
    images, boxes, labels, difficult, originals = [], [], [], [], []
    areas: list[float] = []
    masks: list[np.ndarray] = []
    run_lengths: list[str] = []
    for position, index in enumerate(indices.tolist()):
        path = f"{objects.root}/{objects.files[index]}"
        rows = objects.of(index)
        keep = ~objects.difficult[rows] | (train_on_difficult or draws is None)
        height, width = objects.sizes[index].tolist()
        transform = evaluation if draws is None else partial(train, draws=draws[position])
        image, moved, mirrored = transform(
            read_bytes(path), path, size=(height, width), boxes=objects.boxes[rows][keep]
        )
        images.append(image)
        boxes.append(moved)
        labels.append(objects.labels[rows][keep])
        difficult.append(objects.difficult[rows][keep])
        areas += objects.areas[rows][keep].tolist()
        originals.append((height, width))
        of_image = [*compress(objects.masks[rows], keep)]
        run_lengths += of_image
        if draws is not None:
            resized = (resized_mask(one, (height, width), (image.shape[0], image.shape[1])) for one in of_image)
            masks += (mask[:, ::-1] if mirrored else mask for mask in resized)
    sizes = [(image.shape[0], image.shape[1]) for image in images]
    room = canvas(sizes, divisor, 3)
    for image, place, (height, width) in zip(images, room, sizes, strict=True):
        place[:height, :width] = image
    return RawObjects(
        room,
        torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2),
        torch.cat([objects.boxes[:0], *boxes]).view(torch.int32),
        torch.cat([objects.labels[:0], *labels]),
        torch.cat([objects.difficult[:0], *difficult]),
        [len(part) for part in boxes],
        sizes,
        originals,
        [objects.ids[index] for index in indices.tolist()],
        areas,
        run_lengths if with_masks else None,
        _stacked(masks, (room.shape[1], room.shape[2])) if with_masks and draws is not None else None,
    )


def _stacked(masks: list[np.ndarray], size: tuple[int, int]) -> Tensor:
    """uint8 (B, H, W), each mask at the top left."""
    room = canvas([size] * max(len(masks), 1), 1)[: len(masks)]
    for place, mask in zip(room.numpy(), masks, strict=True):
        height, width = mask.shape
        place[:height, :width] = mask
    return room
