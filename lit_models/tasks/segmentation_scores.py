"""Pixel accuracy and mean intersection over union, from one confusion matrix of the whole set."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

VOID = 255
"""Value of a mask's pixels that belong to no class: neither learned nor scored."""


class SegmentationScores(Metric):
    """PixAcc and mIoU as in the evaluation of ADE20K (Zhou et al. 2017).

    Pixels that are void in the mask are left out, whatever is predicted there. The mean is over all K classes; a class
    that is neither in any mask nor in any prediction counts 0.

    ``compute`` returns float64 ``pixels``, the number of those that are labelled, ``pixel_accuracy``, the share of them
    that are right (NaN if there are none), ``miou`` and ``iou`` (K,).

    Args:
        num_classes: K.
    """

    full_state_update = False
    higher_is_better = True
    confusion: Tensor
    """int64 (K, K): pixels of class i (row) that are predicted as class j."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.add_state("confusion", torch.zeros(num_classes, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, masks: Tensor) -> None:
        """Count the pixels of a batch.

        Args:
            predictions: integers (N, H, W) from 0 to K − 1.
            masks: integers (N, H, W) from 0 to K − 1, or ``VOID``.
        """
        k = self.num_classes
        cells = torch.where(masks == VOID, k * k, masks.long() * k + predictions)
        self.confusion += cells.flatten().bincount(minlength=k * k + 1)[:-1].view(k, k)

    def compute(self) -> dict[str, Tensor]:
        """``pixels`` (), ``pixel_accuracy`` (), ``miou`` () and ``iou`` (K,)."""
        confusion = self.confusion.cpu().double()  # not every device has float64
        right = confusion.diagonal()
        union = confusion.sum(0) + confusion.sum(1) - right
        iou = right / union.clamp(min=1)
        pixels = confusion.sum()
        return {"pixels": pixels, "pixel_accuracy": right.sum() / pixels, "miou": iou.mean(), "iou": iou}
