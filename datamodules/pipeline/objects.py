"""Images with boxes: what every reader of annotations hands over, checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor


class AnnotatedImage(NamedTuple):
    """One image and what an annotation says of it, unchecked."""

    file: str
    """Path of the image below the root."""
    id: int | str
    height: int
    width: int
    boxes: np.ndarray
    """float (B, 4): x1 y1 x2 y2 in pixels; the left edge of the image is 0, the right one its width."""
    labels: list[int]
    difficult: list[bool]
    """Objects that the score ignores."""
    source: str
    """File of the annotation, for errors."""
    areas: Sequence[float] = ()
    """Pixels of each object as the annotation says them, NaN where it does not; empty where it never does."""
    masks: Sequence[str] = ()
    """Of each box, where masks are read: see :func:`~datamodules.pipeline.run_lengths.run_lengths`."""


class Objects(NamedTuple):
    """The images of one part of a data set, and the boxes of all of them one after another."""

    root: Path
    files: list[str]
    """Paths below ``root``."""
    ids: list[int | str]
    """Of each image: its number in COCO, or the stem of its file."""
    sizes: Tensor
    """int64 (N, 2): height and width."""
    counts: Tensor
    """int64 (N,): boxes of each image."""
    boxes: Tensor
    """float32 (B, 4): x1 y1 x2 y2 in pixels, within the image, each with an area."""
    labels: Tensor
    """int64 (B,), from 0."""
    difficult: Tensor
    """bool (B,)."""
    areas: Tensor
    """float64 (B,): pixels of the object as the annotation says them, otherwise those of its box."""
    class_names: list[str]
    category_ids: list[int]
    """What COCO's files call the classes: from 1 where nothing else is said, possibly with gaps."""
    remarks: Counter[str]
    """How many images have no object, and how many boxes were clipped or dropped."""
    masks: list[str]
    """Run lengths of each box, or none at all where masks are not read."""

    def __add__(self, other: Objects) -> Objects:  # type: ignore[override]
        """The images of both, these first."""
        columns = ("sizes", "counts", "boxes", "labels", "difficult", "areas")
        joined: dict[str, Any] = {name: torch.cat((getattr(self, name), getattr(other, name))) for name in columns}
        lists = ("files", "ids", "remarks", "masks")
        joined |= {name: getattr(self, name) + getattr(other, name) for name in lists}
        return self._replace(**joined)

    def of(self, index: int) -> slice:
        """Where the boxes of an image are."""
        end = int(self.counts[: index + 1].sum())
        return slice(end - int(self.counts[index]), end)


def gather(
    root: Path,
    images: Iterable[AnnotatedImage],
    class_names: Sequence[str],
    category_ids: Sequence[int] | None = None,
) -> Objects:
    """Check the boxes of each image and put them together.

    A box without an area is dropped, one that reaches beyond the image is clipped; both are counted, as are images
    without objects.

    Raises:
        MisconfigurationException: a box that is reversed, wholly outside its image or not a number; an image that is
            listed twice; no image, or no object at all.
    """
    remarks: Counter[str] = Counter()
    kept: list[tuple[np.ndarray, ...]] = []
    masks: list[str] = []
    listed: list[AnnotatedImage] = []
    seen: set[int | str] = set()
    for image in images:
        if image.id in seen:
            raise MisconfigurationException(f"{image.source} lists image {image.id} twice; remove one of the two.")
        seen.add(image.id)
        boxes, keep = checked_boxes(image, class_names, remarks)
        labels, difficult = np.array(image.labels, dtype=np.int64), np.array(image.difficult, dtype=bool)
        areas = np.array(image.areas or [np.nan] * len(labels), dtype=np.float64)[keep]
        areas = np.where(np.isnan(areas), (boxes[:, 2:] - boxes[:, :2]).prod(1), areas)
        kept.append((boxes, labels[keep], difficult[keep], areas))
        masks += compress(image.masks, keep)
        listed.append(image)
        remarks["images_without_objects"] += not len(boxes)
    if not listed:
        raise MisconfigurationException(f"{root} has no image in this part; check the list of its images.")
    boxes, labels, difficult, areas = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    return Objects(
        root,
        [image.file for image in listed],
        [image.id for image in listed],
        torch.tensor([(image.height, image.width) for image in listed]),
        torch.tensor([len(boxes) for boxes, *_ in kept]),
        torch.from_numpy(boxes).float(),
        torch.from_numpy(labels),
        torch.from_numpy(difficult),
        torch.from_numpy(areas),
        list(class_names),
        list(category_ids or range(1, len(class_names) + 1)),
        remarks,
        masks,
    )


def checked_boxes(
    image: AnnotatedImage, class_names: Sequence[str], remarks: Counter[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The boxes that have an area, clipped to the image, and which ones these are: (B', 4) and bool (B,).

    Args:
        image: to check.
        class_names: for errors.
        remarks: ``dropped_boxes`` and ``clipped_boxes`` are counted here.

    Raises:
        MisconfigurationException: see :func:`gather`.
    """
    boxes = np.asarray(image.boxes, dtype=np.float64).reshape(-1, 4)
    edge = np.array([image.width, image.height] * 2, dtype=np.float64)
    outside = ((boxes[:, :2] >= edge[:2]) | (boxes[:, 2:] <= 0)).any(1)
    empty = (boxes[:, 2:] == boxes[:, :2]).any(1)
    for wrong, why in (
        (~np.isfinite(boxes).all(1), "is not made of numbers"),
        ((boxes[:, 2:] < boxes[:, :2]).any(1), "ends before it begins"),
        (outside & ~empty, f"lies outside the image of {image.width}×{image.height} pixels"),
    ):
        if wrong.any():
            number = int(wrong.argmax())
            corners = ", ".join(f"{value:g}" for value in boxes[number])
            raise MisconfigurationException(
                f"{image.source}: box {number + 1} of {image.file} ({class_names[image.labels[number]]}, from x, y to"
                f" x, y: {corners}) {why}; correct or remove it."
            )
    clipped = boxes.clip(0, edge)
    keep = ~empty & (clipped[:, 2:] > clipped[:, :2]).all(1)
    remarks["dropped_boxes"] += int((~keep).sum())
    remarks["clipped_boxes"] += int((clipped != boxes)[keep].any(1).sum())
    return clipped[keep], keep
