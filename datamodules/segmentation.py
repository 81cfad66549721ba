"""Photos with masks: folders of both, Pascal VOC and ADE20K."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from datamodules.pipeline.batches import BatchIndices
from datamodules.pipeline.crops import Box
from datamodules.pipeline.decode import decode, read_bytes
from datamodules.pipeline.fingerprint import fingerprint
from datamodules.pipeline.masks import VOID, Masked, decode_mask, list_masked, mask_table
from datamodules.pipeline.randomness import uniforms
from datamodules.pipeline.resizes import SEGMENTATION_DRAWS, check_upright, cut, random_window
from datamodules.pipeline.scenes import Scenes, canvas


class RawMasks(NamedTuple):
    """What a loader hands over, before the work that is done on the device."""

    images: Tensor
    """uint8 (N, H, W, 3), each photo at the top left."""
    extents: Tensor
    """int64 (N, 2): height and width of each photo on the canvas."""
    masks: Tensor
    """uint8 (N, H, W), ``VOID`` beyond the photos."""


class SegmentationFolder(Scenes):
    """A folder of photos, one of index masks with the names of the photos, and lists of names.

    A batch is ``(images, masks)`` after ``on_after_batch_transfer``: images (N, 3, H, W), normalised, channels_last,
    each at the top left of a canvas that is padded with 0; masks int64 (N, H, W) with the classes, and 255 where there
    is none, as in the padding.

    In training the long side is resized to ``base_size`` times a factor that is uniform in ``scale``, and a square of
    ``image_size`` cut out at random, of a photo that is padded where it is smaller. In validation and test photos keep
    their size.

    Args:
        root: folder of the data set.
        class_names: in the order of their labels.
        images: folder of the photos below ``root``.
        masks: folder of the masks below ``root``: PNG files with one 8-bit channel, with a palette or without.
        train: list of the training photos, a file below ``root`` with one name a line, without the extension.
        val: list of the validation photos; with none there is no validation.
        test: list of the test photos.
        void: values in the masks that belong to no class.
        first_class: value in the masks of the first class.
        image_size: side in pixels of the squares to train on.
        base_size: length of the long side at factor 1 (default: ``image_size`` · 13/12, so 520 for 480).
        scale: least and greatest factor.
        size_divisor: the sides of the canvas in validation and test are multiples of it.
        **options: see :class:`~datamodules.pipeline.scenes.Scenes`.
    """

    def __init__(
        self,
        root: Annotated[str, Path],
        class_names: Sequence[str],
        images: str = "images",
        masks: str = "masks",
        train: str = "train.txt",
        val: str | None = "val.txt",
        test: str = "test.txt",
        void: Sequence[int] = (VOID,),
        first_class: int = 0,
        image_size: int = 480,
        base_size: int | None = None,
        scale: tuple[float, float] = (0.5, 2.0),
        size_divisor: int = 32,
        **options: Any,
    ) -> None:
        super().__init__(image_size, **options)
        if not 0 < scale[0] <= scale[1]:
            raise MisconfigurationException(f"scale is {scale}; give two ascending factors above 0.")
        if size_divisor < 1 or (base_size is not None and base_size < 1):
            raise MisconfigurationException("size_divisor and base_size are lengths; give at least 1 pixel.")
        self.root = Path(root).expanduser()
        self.class_names = list(class_names)
        self.num_classes = len(self.class_names)
        self.base_size = base_size or round(image_size * 13 / 12)
        self.scale = scale
        self.size_divisor = size_divisor
        self._table = mask_table(self.num_classes, void, first_class)
        self._folders = images, masks
        self._train, self._val, self._test = train, val, test
        self._training  # noqa: B018  # what is missing is said before the network is built

    def list_part(self, part: str) -> Masked:
        """The photos and masks of one part, by the name of its list."""
        return list_masked(self.root, *self._folders, part)

    @cached_property
    def _training(self) -> tuple[Masked, Masked | None]:
        return self.list_part(self._train), self.list_part(self._val) if self._val else None

    def _part(self, test: bool) -> Masked:
        return self._test_part if test else self._all_training

    @cached_property
    def _test_part(self) -> Masked:
        return self.list_part(self._test)

    @cached_property
    def _all_training(self) -> Masked:
        train, val = self._training
        return train if val is None else train + val

    @property
    def held_out(self) -> int:
        """Number of validation images, which stand behind those of training."""
        _, val = self._training
        return 0 if val is None else len(val.ids)

    def files(self, test: bool) -> tuple[Path, list[str]]:
        """Root and photos of a part."""
        return self.root, self._part(test).images

    def ids(self, test: bool) -> list[str]:
        """Stems of the files, in the order of the images."""
        return self._part(test).ids

    def fingerprint(self, test: bool) -> str:
        """Hash of the names and sizes in bytes of the files, which are not read, and of what the masks' values mean."""
        part = self._part(test)
        files = part.images + part.masks
        sizes = [(self.root / file).stat().st_size for file in files]
        return fingerprint(files, sizes, torch.from_numpy(self._table))

    def fetcher(self, test: bool) -> Callable[[BatchIndices], RawMasks]:
        """Decode, resize, mirror and cut."""
        window = partial(random_window, long=self.base_size, scales=self.scale, crop=(self.image_size, self.image_size))
        return partial(
            _fetch,
            self._part(test),
            self._table,
            window,
            self.image_size,
            self.size_divisor,
            self.flip,
            self.seed,
            self.max_pixels,
        )

    def on_after_batch_transfer(self, batch: RawMasks, dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Normalise, and blank what lies beyond the photos; see the class for shapes."""
        return self.on_canvas(batch.images, batch.extents), batch.masks.long()


class VOCSegmentation(SegmentationFolder):
    """Pascal VOC 2012's classes of pixels in its original layout: 20 classes and the background.

    Args:
        root: the folder of ``JPEGImages/``, ``SegmentationClass/`` and ``ImageSets/Segmentation/``.
        train: list of the training photos.
        val: list of the validation photos; with none there is no validation.
        test: list of the test photos.
        **options: see :class:`SegmentationFolder`.
    """

    def __init__(
        self,
        root: Annotated[str, Path],
        train: str = "ImageSets/Segmentation/train.txt",
        val: str | None = None,
        test: str = "ImageSets/Segmentation/val.txt",
        **options: Any,
    ) -> None:
        super().__init__(
            root=root,
            class_names=VOC_CLASSES,
            images="JPEGImages",
            masks="SegmentationClass",
            train=train,
            val=val,
            test=test,
            **options,
        )


class ADE20K(SegmentationFolder):
    """ADE20K's scene parsing benchmark (Zhou et al. 2017) in its original layout: 150 classes, of which 0 is none.

    ``validation``, on which papers report, is the test part.

    Args:
        root: the folder ``ADEChallengeData2016``, with ``images/``, ``annotations/`` and ``objectInfo150.txt``.
        train: folder of the training photos, and of their masks.
        val: folder of the validation photos; with none there is no validation.
        test: folder of the test photos.
        **options: see :class:`SegmentationFolder`.
    """

    def __init__(
        self,
        root: Annotated[str, Path],
        train: str = "training",
        val: str | None = None,
        test: str = "validation",
        **options: Any,
    ) -> None:
        super().__init__(
            root=root,
            class_names=ade20k_classes(Path(root).expanduser() / "objectInfo150.txt"),
            train=train,
            val=val,
            test=test,
            void=(0,),
            first_class=1,
            **options,
        )

    def list_part(self, part: str) -> Masked:
        """The photos and masks of one part: all that lie in its folder."""
        return list_masked(self.root, f"images/{part}", f"annotations/{part}")


def ade20k_classes(path: Path) -> list[str]:
    """The first name of each class, from the table that comes with the images; numbers if it is not there."""
    if not path.is_file():
        return [str(number) for number in range(1, 151)]
    _, *rows = path.read_text(encoding="utf-8").splitlines()
    return [row.split("\t")[-1].split(",")[0].strip() for row in rows if row.strip()]


VOC_CLASSES = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]


def _fetch(
    part: Masked,
    table: np.ndarray,
    window: Callable[..., tuple[Box, tuple[int, int]]],
    side: int,
    divisor: int,
    flip: bool,
    seed: int,
    max_pixels: int,
    batch: BatchIndices,
) -> RawMasks:
    indices, epoch = batch.indices, batch.epoch
    draws = None if epoch is None else uniforms(seed, epoch, indices, SEGMENTATION_DRAWS).numpy()
    images, masks = [], []
    for position, index in enumerate(indices.tolist()):
        path, mask_path = (f"{part.root}/{files[index]}" for files in (part.images, part.masks))
        data = read_bytes(path)
        check_upright(data, path)
        image = decode(data, path, max_pixels=max_pixels)
        height, width, _ = image.shape
        mask = decode_mask(read_bytes(mask_path), mask_path, table, height, width)
        if draws is None:
            images.append(image)
            masks.append(mask)
        else:
            row = draws[position]
            cropped, labels = cut(image, mask, *window(row, height, width), flip and row[1] < 0.5)
            images.append(cropped)
            masks.append(labels)
    sizes = [(image.shape[0], image.shape[1]) for image in images]
    # Crops of one size for all batches, whatever the photos were.
    room, labels_room = (
        canvas(sizes, divisor, *channels, value=value)
        if draws is None
        else canvas([(side, side)] * len(sizes), 1, *channels, value=value)
        for channels, value in (((3,), 0), ((), VOID))
    )
    images_there, masks_there = room.numpy(), labels_room.numpy()  # of the same memory
    for number, (height, width) in enumerate(sizes):
        images_there[number, :height, :width] = images[number]
        masks_there[number, :height, :width] = masks[number]
    return RawMasks(room, torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2), labels_room)
