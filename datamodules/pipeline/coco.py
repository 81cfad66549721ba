"""Instance annotations of COCO (Lin et al. 2014), and of any data set in its format."""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.pipeline.objects import AnnotatedImage, Objects, gather
from datamodules.pipeline.run_lengths import has_mask, run_lengths


def read_coco(root: str | Path, images: str, annotations: str, masks: bool = False) -> Objects:
    """The images of one part, and their objects.

    Labels follow the ids of the categories, which may have gaps: the lowest id is label 0. A crowd is marked difficult.
    ``remarks`` counts crowds, and objects with an empty polygon. These keep their boxes; where masks are read, objects
    without one are dropped and counted.

    Args:
        root: folder of the data set.
        images: folder of the images, below ``root``.
        annotations: JSON file with ``images``, ``annotations`` and ``categories``, below ``root``.
        masks: whether to read the masks of the objects too.

    Raises:
        MisconfigurationException: what is broken, missing or contradictory, in one sentence that names the file.
    """
    root = Path(root).expanduser()
    path = root / annotations
    data = _read(path)
    try:
        categories = sorted((int(one["id"]), str(one["name"])) for one in data["categories"])
        listed = [(one["id"], str(one["file_name"]), int(one["height"]), int(one["width"])) for one in data["images"]]
        objects = [(one["image_id"], one["category_id"], one["bbox"], one) for one in data["annotations"]]
    except (KeyError, TypeError, ValueError) as error:
        raise MisconfigurationException(f"{path} has no instances in COCO's format ({error!r}); replace it.") from error
    label = {number: position for position, (number, _) in enumerate(categories)}
    if not label or len(label) < len(categories):
        raise MisconfigurationException(f"{path} has no categories, or two with one id; correct them.")
    of_image: dict[Any, list[tuple[Any, Any, dict[str, Any]]]] = defaultdict(list)
    known = {number for number, *_ in listed}
    for image, category, box, one in objects:
        where = f"{path}: annotation {one.get('id')} is of"
        if image not in known:
            raise MisconfigurationException(f"{where} image {image}, which is not listed; remove or add it.")
        if category not in label:
            raise MisconfigurationException(f"{where} category {category}, which is not listed; remove or add it.")
        if not masks or has_mask(one.get("segmentation")):
            of_image[image].append((label[category], box, one))
    if objects and not of_image:
        raise MisconfigurationException(f"{path} has no masks of its objects; set masks to false, or replace it.")
    try:
        there = set(_files(root / images))
    except OSError as error:
        raise MisconfigurationException(f"{root / images} is no folder; check the folder of the data set.") from error
    if absent := next((file for _, file, *_ in listed if file not in there), None):
        raise MisconfigurationException(f"{path} lists {absent}, which is not in {root / images}; add or remove it.")
    found = gather(
        root,
        (
            AnnotatedImage(
                f"{images}/{file}",
                number,
                height,
                width,
                _corners([box for _, box, _ in of_image[number]], path, number),
                [its for its, _, _ in of_image[number]],
                [bool(one.get("iscrowd")) for _, _, one in of_image[number]],
                str(path),
                [_area(one, path) for _, _, one in of_image[number]],
                [_mask(one, path, height, width) for _, _, one in of_image[number]] if masks else (),
            )
            for number, file, height, width in listed
        ),
        [name for _, name in categories],
        [number for number, _ in categories],
    )
    found.remarks["crowds"] = int(found.difficult.sum())
    found.remarks["empty_polygons"] = sum(one.get("segmentation") in ([], [[]]) for *_, one in objects)
    if masks:
        found.remarks["objects_without_masks"] = len(objects) - sum(map(len, of_image.values()))
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
    except OSError as error:
        raise MisconfigurationException(f"{path} can't be read ({error.strerror}); check its path.") from error
    except ValueError as error:
        raise MisconfigurationException(f"{path} is no whole JSON file ({error}); replace it.") from error
    if not isinstance(data, dict):
        raise MisconfigurationException(f"{path} has no instances in COCO's format; give an instances_*.json file.")
    return data


def _files(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def _area(annotation: dict[str, Any], path: Path) -> float:
    """NaN where nothing is said of it."""
    area = annotation.get("area")
    if area is None:
        return math.nan
    if not isinstance(area, int | float) or not 0 <= area < math.inf:
        raise MisconfigurationException(
            f"{path}: annotation {annotation.get('id')} of image {annotation['image_id']} has the area {area!r}; give a"
            " number of pixels, or leave it out."
        )
    return float(area)


def _mask(annotation: dict[str, Any], path: Path, height: int, width: int) -> str:
    try:
        return run_lengths(annotation["segmentation"], height, width)
    except ValueError as error:
        number, image = annotation.get("id"), annotation["image_id"]
        raise MisconfigurationException(
            f"{path}: annotation {number} of image {image} {error}; correct or remove it."
        ) from error


def _corners(boxes: list[Any], path: Path, image: Any) -> np.ndarray:
    """x, y, width, height -> x1 y1 x2 y2."""
    try:
        sides = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    except (TypeError, ValueError) as error:
        raise MisconfigurationException(f"{path}: a box of image {image} is not four numbers; correct it.") from error
    return np.column_stack((sides[:, :2], sides[:, :2] + sides[:, 2:]))
