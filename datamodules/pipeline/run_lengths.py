"""Masks of single objects as COCO's compressed run lengths: a short text each, through pycocotools."""

from __future__ import annotations

from typing import Any

import numpy as np
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.pipeline.resizes import nearest


def has_mask(segmentation: Any) -> bool:
    """Whether it is run lengths, or polygons of which one at least has points."""
    return bool(segmentation) and (not isinstance(segmentation, list) or any(segmentation))


def run_lengths(segmentation: Any, height: int, width: int) -> str:
    """The mask of an object as compressed run lengths.

    Args:
        segmentation: as in an annotation of COCO: polygons, each x1, y1, x2, y2, … in pixels, whose union is taken; or
            run lengths, compressed or not.
        height: of the image.
        width: of the image.

    Raises:
        ValueError: what is wrong with it, as the end of a sentence.
        MisconfigurationException: pycocotools is not installed.
    """
    mask = _pycocotools()
    if isinstance(segmentation, list):
        polygons = [_polygon(points, height, width) for points in segmentation if points]
        return mask.merge(mask.frPyObjects(polygons, height, width))["counts"].decode()
    try:
        size, counts = list(segmentation["size"]), segmentation["counts"]
        if size != [height, width]:
            raise ValueError(f"has run lengths of an image of {size[1]}×{size[0]} pixels")
        if isinstance(counts, str):
            return _checked(counts, size)
        if sum(counts) == height * width and min(counts) >= 0:
            return mask.frPyObjects({"size": size, "counts": counts}, height, width)["counts"].decode()
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError("has a mask that is neither polygons nor run lengths") from error
    raise ValueError("has run lengths that do not fill the image")


def _checked(counts: str, size: list[int]) -> str:
    mask = _pycocotools()
    try:
        # pycocotools takes whatever is in memory for the pixels beyond runs that are too short.
        whole = mask.encode(mask.decode({"size": size, "counts": counts}))["counts"].decode() == counts
    except ValueError:
        whole = False
    if not whole:
        raise ValueError("has run lengths that do not fill the image")
    return counts


def _polygon(points: Any, height: int, width: int) -> list[float]:
    try:
        corners = np.array(points, dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        raise ValueError("has a polygon that is not made of pairs of numbers") from error
    if len(corners) < 3:
        raise ValueError("has a polygon of fewer than three points")
    # pycocotools cuts off what lies beyond the image, but takes memory for all of it.
    if not (np.abs(corners - (width / 2, height / 2)) <= 2 * max(height, width)).all():
        raise ValueError("has a polygon that goes far beyond the image")
    return corners.reshape(-1).tolist()


def resized_mask(counts: str, size: tuple[int, int], resized: tuple[int, int]) -> np.ndarray:
    """The mask of an object in a resized image, by nearest pixels: uint8 (H, W), 1 in the object.

    Args:
        counts: see :func:`run_lengths`.
        size: height and width of the image.
        resized: height and width of the result.
    """
    mask = _pycocotools().decode({"size": list(size), "counts": counts})
    rows, columns = (nearest(length, new) for length, new in zip(size, resized, strict=True))
    return mask[rows[:, None], columns]


def _pycocotools() -> Any:
    try:
        from pycocotools import mask
    except ModuleNotFoundError as error:
        raise MisconfigurationException(
            "The masks of objects need pycocotools: pip install 'fathom-depth[detection]', or set masks to false."
        ) from error
    return mask
