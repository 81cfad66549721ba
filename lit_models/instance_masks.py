"""Masks of detected objects in whole images: as pixels, and as COCO's compressed run lengths."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from lit_models.errors import NetworkError

_THRESHOLD = 0.5


def pasted(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks that fill their boxes in an image of ``size``: bool (M, H, W) on the CPU.

    Args:
        masks: (M, 1, S, S), probabilities; see ``Detections``.
        boxes: (M, 4), x1 y1 x2 y2 in pixels of that image.
        size: height and width of the image.
    """
    # One by one, as each takes four bytes a pixel until it is compared.
    whole = [
        paste_masks_in_image(mask[None], box[None], size)[0, 0] > _THRESHOLD
        for mask, box in zip(masks.detach().cpu(), boxes.detach().cpu(), strict=True)
    ]
    return torch.stack(whole) if whole else torch.zeros(0, *size, dtype=torch.bool)


def run_lengths(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> list[str]:
    """The masks that :func:`pasted` returns, as a short text each.

    Raises:
        NetworkError: pycocotools is not installed.
    """
    encode = pycocotools("mask").encode
    return [
        encode(np.asfortranarray(pasted(mask[None], box[None], size)[0].numpy().view(np.uint8)))["counts"].decode()
        for mask, box in zip(masks.cpu(), boxes.cpu(), strict=True)
    ]


def pycocotools(module: str) -> Any:
    """A module of pycocotools.

    Raises:
        NetworkError: it is not installed.
    """
    try:
        return import_module(f"pycocotools.{module}")
    except ModuleNotFoundError as error:
        raise NetworkError(
            "COCO's average precision and its run lengths of masks need pycocotools: pip install"
            " 'fathom-depth[detection]'."
        ) from error
