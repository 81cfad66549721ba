"""Detections and masks drawn over images, and written to files."""

from __future__ import annotations

import colorsys
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from lit_models.files import atomic
from lit_models.instance_masks import pasted, run_lengths

_GOLDEN_ANGLE = 0.381966
_VOID, _VOID_COLOUR = 255, (224, 224, 192)  # as in Pascal VOC


def colours(count: int) -> list[tuple[int, int, int]]:
    """RGB colours that can be told apart: hues a golden angle apart, on three levels of brightness."""
    return [
        _rgb(number * _GOLDEN_ANGLE % 1, (0.95, 0.7, 0.5)[number % 3], (1.0, 0.85, 0.6)[number // 3 % 3])
        for number in range(count)
    ]


def _rgb(hue: float, value: float, saturation: float) -> tuple[int, int, int]:
    red, green, blue = (round(255 * level) for level in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue


def pixels(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalised images as they look: float (N, 3, H, W) -> uint8 (N, 3, H, W) on the CPU."""
    m, s = (torch.tensor(list(values)).view(-1, 1, 1) for values in (mean, std))
    return (images.detach().float().cpu() * s + m).mul(255).round().clamp(0, 255).byte()


def draw_boxes(
    image: Tensor, boxes: Tensor, labels: Tensor, class_names: Sequence[str], scores: Tensor | None = None
) -> Tensor:
    """Boxes with the names of their classes, and scores if there are any, in one colour a class.

    Args:
        image: uint8 (3, H, W).
        boxes: (B, 4), x1 y1 x2 y2 in pixels.
        labels: (B,) from 0 to K − 1.
        class_names: of all K classes.
        scores: (B,).

    Returns:
        uint8 (3, H, W).
    """
    if not len(boxes):
        return image.clone()
    palette = colours(len(class_names))
    names = [class_names[label] for label in labels.tolist()]
    if scores is not None:
        names = [f"{name} {score:.2f}" for name, score in zip(names, scores.tolist(), strict=True)]
    return draw_bounding_boxes(
        image.cpu(),
        boxes.detach().float().cpu(),
        names,
        [palette[label] for label in labels.tolist()],
        width=max(min(image.shape[1:]) // 200, 1),
    )


def draw_objects(image: Tensor, found: Mapping[str, Tensor], class_names: Sequence[str]) -> Tensor:
    """Detections with the names of their classes and scores, and their masks if there are any; see :func:`draw_boxes`.

    Args:
        image: uint8 (3, H, W).
        found: ``boxes`` (D, 4) in pixels, ``labels`` (D,), ``scores`` (D,), and perhaps ``masks`` (D, 1, S, S).
        class_names: of all K classes.

    Returns:
        uint8 (3, H, W).
    """
    image = image.cpu()
    if "masks" in found and len(found["masks"]):
        palette = colours(len(class_names))
        masks = pasted(found["masks"], found["boxes"], (image.shape[1], image.shape[2]))
        of_object = [palette[label] for label in found["labels"].tolist()]
        image = draw_segmentation_masks(image, masks, 0.5, of_object)
    return draw_boxes(image, found["boxes"], found["labels"], class_names, found["scores"])


def draw_mask(image: Tensor, mask: Tensor, num_classes: int) -> Tensor:
    """The classes of the pixels as colours over the image; void pixels stay as they are.

    Args:
        image: uint8 (3, H, W).
        mask: (H, W) from 0 to K − 1, or 255.
        num_classes: K.

    Returns:
        uint8 (3, H, W).
    """
    classes = torch.arange(num_classes)[:, None, None] == mask.cpu()
    return draw_segmentation_masks(image.cpu(), classes, 0.6, colours(num_classes))


def write_picture(path: str | Path, image: Tensor) -> None:
    """Write an image, uint8 (3, H, W), as PNG."""
    _write_png(path, Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()))


def write_mask(path: str | Path, mask: Tensor, num_classes: int) -> None:
    """Write a mask, integers (H, W), as a PNG of indices with the colours of :func:`colours` as its palette."""
    image = Image.fromarray(mask.cpu().numpy().astype(np.uint8))
    unused = [(0, 0, 0)] * (_VOID - num_classes)
    image.putpalette([level for colour in (*colours(num_classes), *unused, _VOID_COLOUR) for level in colour])
    _write_png(path, image)


def _write_png(path: str | Path, image: Image.Image) -> None:
    with atomic(path, "wb") as file:
        image.save(file, "PNG")


def coco_results(
    detections: Iterable[Mapping[str, Tensor]],
    ids: Iterable[int | str],
    sizes: Iterable[tuple[int, int]],
    original_sizes: Iterable[tuple[int, int]],
    categories: Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """Detections as COCO's results have them, in pixels of the original images.

    Args:
        detections: of each image ``boxes`` (D, 4) on the canvas, ``scores`` (D,) and ``labels`` (D,), and perhaps
            ``masks`` (D, 1, S, S).
        ids: of the images.
        sizes: height and width of the images on the canvas.
        original_sizes: height and width of the images in their files.
        categories: id of each label (default: the label plus 1).

    Returns:
        ``image_id``, ``category_id``, ``bbox`` (x, y, width, height) and ``score`` of each detection; and its
        ``segmentation``, compressed run lengths, if it has a mask.
    """
    results = []
    for found, image, (height, width), original in zip(detections, ids, sizes, original_sizes, strict=True):
        scale = torch.tensor([original[1] / width, original[0] / height] * 2, dtype=torch.float64)
        boxes = found["boxes"].detach().cpu().double() * scale
        sides = torch.cat((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), 1).tolist()
        of_image: list[dict[str, Any]] = []
        for box, score, label in zip(sides, found["scores"].tolist(), found["labels"].tolist(), strict=True):
            category = label + 1 if categories is None else categories[label]
            box = [round(value, 3) for value in box]
            of_image.append({"image_id": image, "category_id": category, "bbox": box, "score": round(score, 6)})
        if "masks" in found:
            for result, counts in zip(of_image, run_lengths(found["masks"], boxes, original), strict=True):
                result["segmentation"] = {"size": list(original), "counts": counts}
        results += of_image
    return results


def write_results(path: str | Path, results: list[dict[str, Any]]) -> None:
    """Write what :func:`coco_results` returns as JSON."""
    with atomic(path) as file:
        json.dump(results, file)
