"""Images with index masks: a PNG whose pixels are class numbers."""

from __future__ import annotations

import io
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image

from datamodules.pipeline.folder import EXTENSIONS
from datamodules.pipeline.names import image_files, read_names

VOID = 255
"""Value of pixels that belong to no class: neither learned nor scored."""
MAX_CLASSES = 254
_UNKNOWN = 254


class Masked(NamedTuple):
    """The images of one part of a data set."""

    root: Path
    ids: list[str]
    """Stems of the files."""
    images: list[str]
    """Paths below ``root``."""
    masks: list[str]
    """Paths below ``root``."""

    def __add__(self, other: Masked) -> Masked:  # type: ignore[override]
        """The images of both, these first."""
        return Masked(self.root, self.ids + other.ids, self.images + other.images, self.masks + other.masks)


def list_masked(root: Path, images: str, masks: str, names: str | None = None) -> Masked:
    """Find images and their masks, which have the stems of the images.

    Args:
        root: folder of the data set.
        images: folder below ``root``.
        masks: folder below ``root``.
        names: list of stems, a file below ``root`` (default: all images).

    Raises:
        MisconfigurationException: a folder, a list, an image or a mask is missing, or a name is listed twice.
    """
    photos = image_files(root / images, EXTENSIONS)
    found = image_files(root / masks, {".png"})
    stems = list(photos) if names is None else read_names(root / names, photos, str(root / images))
    if not stems:
        raise MisconfigurationException(f"{root / images} has no image in it; check the folder of the data set.")
    if absent := next((stem for stem in stems if stem not in found), None):
        raise MisconfigurationException(
            f"{root / images / photos[absent]} has no mask: {root / masks / absent}.png is missing; add or remove one."
        )
    return Masked(root, stems, [f"{images}/{photos[s]}" for s in stems], [f"{masks}/{found[s]}" for s in stems])


def mask_table(num_classes: int, void: Collection[int] = (VOID,), first: int = 0) -> np.ndarray:
    """What each value in a mask's file means: uint8 (256,), for :func:`decode_mask`.

    Args:
        num_classes: K.
        void: values that belong to no class.
        first: value of class 0; 1 in ADE20K, where 0 is void.
    """
    if not 0 < num_classes <= MAX_CLASSES:
        raise MisconfigurationException(f"there are {num_classes} classes; a mask can have 1 to {MAX_CLASSES}.")
    table = np.full(256, _UNKNOWN, dtype=np.uint8)
    table[first : first + num_classes] = np.arange(num_classes)
    table[list(void)] = VOID
    return table


def decode_mask(data: bytes, name: str, table: np.ndarray, height: int, width: int) -> np.ndarray:
    """The classes of the pixels, ``VOID`` where there is none: uint8 (H, W).

    A palette, as VOC's masks have it, is for the eye: the values are its indices.

    Args:
        data: a PNG file.
        name: of the file, for errors.
        table: see :func:`mask_table`.
        height: of the image that the mask belongs to.
        width: of that image.

    Raises:
        MisconfigurationException: it is no image with one 8-bit channel, it has another size, a value that is no class,
            or no class at all.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            mode, size = image.mode, image.size
            values = bytearray(image.tobytes()) if mode in ("P", "L") else None
    except Exception as error:  # decoders raise what they like
        raise MisconfigurationException(f"{name} is not a whole mask ({error}); replace it.") from error
    if values is None:
        raise MisconfigurationException(
            f"{name} has pixels of mode {mode}; a mask has one 8-bit channel with the numbers of the classes (P or L)."
        )
    if size != (width, height):
        raise MisconfigurationException(
            f"{name} has {size[0]}×{size[1]} pixels and its image {width}×{height}; make them equal."
        )
    classes = values.translate(table.tobytes())  # a tenth of the time of indexing with them
    if _UNKNOWN in classes:
        known = np.flatnonzero(table != _UNKNOWN).tolist()
        raise MisconfigurationException(
            f"{name} has the value {min(set(values).difference(known))}, which is none of the"
            f" {int((table < _UNKNOWN).sum())} classes and not void; correct it, or the number of classes, or what is"
            " void."
        )
    if classes.count(VOID) == len(classes):
        raise MisconfigurationException(f"{name} is void in every pixel; take the image out of its list.")
    return np.frombuffer(classes, dtype=np.uint8).reshape(height, width)
