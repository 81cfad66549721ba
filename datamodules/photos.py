"""ImageNet-sized photos: decoded, cropped and resized in worker processes, the rest on the device."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import get_worker_info

from datamodules.pipeline.augment import ERASING_DRAWS, Erasing, erase, normalise
from datamodules.pipeline.batches import BatchIndices
from datamodules.pipeline.cache import cached
from datamodules.pipeline.choices import check_choice
from datamodules.pipeline.crops import DRAWS, Interpolation, random_resized_crop
from datamodules.pipeline.decode import MAX_PIXELS, DecodeError, read_bytes
from datamodules.pipeline.fingerprint import fingerprint
from datamodules.pipeline.folder import ImageFolder, Listing
from datamodules.pipeline.geometry import Geometry
from datamodules.pipeline.image_data import ImageData, RawBatch
from datamodules.pipeline.policies import apply_policy, make_policy
from datamodules.pipeline.randomness import uniforms
from datamodules.pipeline.resumable import check_std
from datamodules.pipeline.statistics import Corrupt, photo_statistics

# Columns of the draws; the crop takes the first ones.
_FLIP, _ERASING = DRAWS, slice(DRAWS + 1, DRAWS + 1 + ERASING_DRAWS)
PHOTO_DRAWS = _ERASING.stop
_SCALED_FROM = 160  # pixels a side: below, what libjpeg-turbo averages differs visibly from the antialiased resize
Decode = Literal["exact", "scaled"]


class Photos(ImageData):
    """A folder of class folders with photos of any size.

    In training a random rectangle is resized to the network's size and mirrored half of the time; in validation and
    test the short side is resized and the centre cut out. Workers hand over uint8; normalisation, erasing and mixing
    are done for the whole batch on the device.

    ``train/``, ``val/`` and ``test/`` are found as :class:`~datamodules.pipeline.folder.ImageFolder` says: if all three
    have the class folders, ``val/`` is the validation part; if only two have, validation is cut from ``train/`` and the
    other is the test part. ``folders`` in the summary says what was used. A photo is turned as its EXIF data says.

    Args:
        root: folder with ``train/<class>/``, ``val/<class>/`` and ``test/<class>/``, the last two optional, or with the
            class folders alone, and no test part.
        image_size: side in pixels of what the network gets.
        crop_ratio: test geometry: the short side is resized to ``image_size / crop_ratio`` pixels, rounded down.
        scale: training geometry: least and greatest share of the photo's area.
        ratio: training geometry: least and greatest width over height.
        interpolation: of the resize, with antialiasing, and of what a policy of timm rotates, shears and shifts.
        flip: mirror half of the training images.
        policy: an augmentation policy by name, see :func:`~datamodules.pipeline.policies.make_policy`.
        erasing: probability that a random rectangle of a training image is erased.
        erasing_mode: what it is filled with: ``"const"``, the mean colour, or ``"pixel"``, normal noise in each pixel.
        mean: per channel, in [0, 1] (default: computed once, from up to 10,000 training images).
        std: standard deviation per channel, of images in [0, 1] (default: computed with the mean).
        decode: of a large JPEG in training: every pixel (``"exact"``), or no more than the crop needs (``"scaled"``),
            which is faster and differs more the smaller ``image_size`` is (default: exact below 160 pixels).
        corrupt: ``"stop"`` at a broken file, or ``"skip"`` it: leave it out of its batch, and count it in the
            summary; ``predict``, which numbers the images, needs ``"stop"``.
        max_pixels: limit on the pixels of a photo; one that claims more counts as broken.
        num_workers: processes that make batches ahead of time.
        **options: see :class:`~datamodules.pipeline.image_data.ImageData`.
    """

    in_channels = 3

    def __init__(
        self,
        root: Annotated[str, Path],
        image_size: int = 224,
        crop_ratio: float = 0.875,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        interpolation: Interpolation = "bilinear",
        flip: bool = True,
        policy: str | None = None,
        erasing: float = 0.0,
        erasing_mode: Erasing = "const",
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        decode: Decode | None = None,
        corrupt: Corrupt = "stop",
        max_pixels: int = MAX_PIXELS,
        num_workers: int = 8,
        **options: Any,
    ) -> None:
        super().__init__(num_workers=num_workers, **options)
        if not 0 < crop_ratio <= 1:
            raise MisconfigurationException(f"crop_ratio is {crop_ratio}; give a number above 0 and at most 1.")
        if not 0 < scale[0] <= scale[1] <= 1:
            raise MisconfigurationException(f"scale is {scale}; give two ascending shares of the area, at most 1.")
        if not 0 <= erasing <= 1:
            raise MisconfigurationException(f"erasing is {erasing}; give a probability, from 0 to 1.")
        if image_size < 1:
            raise MisconfigurationException(f"image_size is {image_size}; give at least 1 pixel.")
        if std is not None and min(std) <= 0:
            raise MisconfigurationException(f"std is {std}; give numbers above 0.")
        decode = decode or ("exact" if image_size < _SCALED_FROM else "scaled")
        check_choice("interpolation", interpolation, Interpolation)
        check_choice("erasing_mode", erasing_mode, Erasing)
        check_choice("decode", decode, Decode)
        check_choice("corrupt", corrupt, Corrupt)
        self._open(root)
        self.num_classes = len(self.class_names)
        self.image_size = image_size
        self.crop_ratio = crop_ratio
        self.scale = scale
        self.ratio = ratio
        self.interpolation: Interpolation = interpolation
        self.flip = flip
        self.policy = policy
        self.erasing = erasing
        self.erasing_mode: Erasing = erasing_mode
        self.decode = decode
        self.corrupt = corrupt
        self.max_pixels = max_pixels
        self._mean, self._std = mean, std
        self._skipped: set[str] = set()
        if policy:
            make_policy(policy, (0.5, 0.5, 0.5))

    def _open(self, root: str) -> None:
        self._folder = ImageFolder(root)
        self.class_names = self._folder.class_names

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of the channels, as given or computed from the training images."""
        return self._mean or self._statistics[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of the channels, as given or computed from the training images."""
        return self._std or self._statistics[1]

    @cached_property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        listing = self._folder.only_training
        sizes, _ = listing.stamps()
        made_from = ["photo statistics 2", list(listing.files), sizes, self.corrupt, self.max_pixels]
        found = cached("statistics", made_from, lambda: photo_statistics(listing, self.corrupt, self.max_pixels))
        return check_std(tuple(found["mean"].tolist()), tuple(found["std"].tolist()))

    @cached_property
    def _test_listing(self) -> Listing:
        return self._folder.test()

    def _listing(self, test: bool) -> Listing:
        return self._test_listing if test else self._folder.training

    def setup(self, stage: str) -> None:
        """Check what only a run can know.

        Raises:
            MisconfigurationException: in a prediction where broken files would be skipped.
        """
        if stage == "predict" and self.corrupt == "skip":
            raise MisconfigurationException(
                "predictions are numbered by image, so that none can be skipped: set data.corrupt to stop, and replace"
                " the broken files, which `fathom scan` lists"
            )
        super().setup(stage)

    @property
    def held_out(self) -> int:
        """Number of images of ``val/``, which stand behind those of ``train/``, if it is the validation part."""
        return self._folder.held_out

    def labels(self, test: bool) -> Tensor:
        """int64 (N,)."""
        return self._listing(test).labels

    def fingerprint(self, test: bool) -> str:
        """Hash of the names, sizes in bytes and labels of the files, which are not read."""
        listing = self._listing(test)
        sizes, _ = listing.stamps()
        return fingerprint(list(listing.files), sizes, listing.labels)

    def fetcher(self, test: bool) -> Callable[[BatchIndices], RawBatch]:
        """Decode, crop and resize."""
        skip = self.corrupt == "skip"
        return partial(_fetch, self._listing(test), *self._transforms(), self.seed, self.image_size, skip)

    def _transforms(self) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
        """Of one encoded image, in training and in evaluation."""
        train = partial(
            train_image,
            seed=self.seed,
            size=self.image_size,
            scale=self.scale,
            ratio=self.ratio,
            interpolation=self.interpolation,
            flip=self.flip,
            policy=make_policy(self.policy, self.mean, self.interpolation) if self.policy else None,
            max_pixels=self.max_pixels,
            exact=self.decode == "exact",
        )
        return train, self.geometry(vars(self))

    @classmethod
    def geometry(cls, settings: Mapping[str, Any]) -> Geometry:
        """The short side resized, the centre cut out; see :class:`~datamodules.pipeline.image_data.ImageData`."""
        defaults = inspect.signature(Photos).parameters
        names = ("image_size", "crop_ratio", "interpolation", "max_pixels")
        return Geometry(**{name: settings.get(name, defaults[name].default) for name in names})

    def augment_and_normalise(self, batch: RawBatch) -> Tensor:
        """Normalise and erase on the device."""
        self._skipped.update(batch.skipped)
        images = normalise(batch.images, self.mean, self.std)
        if self.erasing and batch.draws is not None:
            erase(images, batch.draws[:, _ERASING], self.erasing, self.erasing_mode)
        return images.permute(0, 3, 1, 2)

    def report(self) -> dict[str, Any]:
        """The summary's entries about the data."""
        return {
            **super().report(),
            "folders": self._folder.folders(self.val_fraction),
            "corrupt_images": len(self._skipped),
            "corrupt_files": sorted(self._skipped)[:20],
        }


class ImageNet(Photos):
    """ImageNet-1k (Russakovsky et al. 2015): ``train/`` and ``val/`` with 1,000 class folders each.

    ``val/``, on which papers report, is the test part; validation is cut from ``train/``. A ``test/`` without class
    folders, as ILSVRC ships it, is passed over. Should there be one with the class folders, it is the test part and
    ``val/`` the validation part.

    Args:
        root: the folder of the two.
        mean: per channel, in [0, 1].
        std: standard deviation per channel, of images in [0, 1].
        **options: see :class:`Photos`.
    """

    def __init__(
        self,
        root: Annotated[str, Path],
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
        **options: Any,
    ) -> None:
        super().__init__(root, mean=mean, std=std, **options)


def _fetch(
    listing: Listing,
    train: Callable[..., Tensor],
    evaluation: Callable[..., Tensor],
    seed: int,
    size: int,
    skip: bool,
    batch: BatchIndices,
) -> RawBatch:
    indices, epoch, number, *_ = batch
    draws = None if epoch is None else uniforms(seed, epoch, indices, PHOTO_DRAWS)
    images = torch.empty(len(indices), size, size, 3, dtype=torch.uint8)
    if get_worker_info() is not None:
        images.share_memory_()  # else the queue to the main process copies the batch
    rows = None if draws is None else draws.numpy()
    kept: list[int] = []
    skipped: list[str] = []
    for position, index in enumerate(indices.tolist()):
        path = f"{listing.root}/{listing.files[index]}"
        try:
            data = read_bytes(path)
            if rows is None:
                image = evaluation(data, path)
            else:
                image = train(data, path, draws=rows[position], epoch=epoch, index=index)
        except DecodeError:
            if not skip:
                raise
            skipped.append(path)
            continue
        images[len(kept)] = image
        kept.append(position)
    targets = listing.labels[indices]
    if skipped:
        if not kept:
            raise DecodeError(f"a whole batch is broken, from {skipped[0]} to {skipped[-1]}; replace or remove them.")
        images, targets = images[: len(kept)], targets[kept]
        draws = None if draws is None else draws[kept]
    return RawBatch(images, targets, draws, epoch, number, tuple(skipped))


def train_image(
    data: bytes,
    name: str,
    draws: np.ndarray,
    epoch: int,
    index: int,
    seed: int,
    size: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    interpolation: Interpolation,
    flip: bool,
    policy: Callable[[Tensor], Tensor] | None,
    max_pixels: int = MAX_PIXELS,
    exact: bool = False,
) -> Tensor:
    """Crop, mirror and apply the policy: uint8 (size, size, 3)."""
    image = random_resized_crop(data, name, draws[:DRAWS], size, scale, ratio, interpolation, max_pixels, exact)
    if flip and draws[_FLIP] < 0.5:
        image = image.flip(1)
    return image if policy is None else apply_policy(policy, image, seed, epoch, index)
