"""The LightningModule around every network that segments images."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import SumMetric

from lit_models.interfaces import LogitsWithAux
from lit_models.tasks.check_images import check_images
from lit_models.tasks.description import describe
from lit_models.tasks.segmentation_scores import VOID, SegmentationScores
from lit_models.tasks.task import Task

Batch = tuple[Tensor, Tensor]
"""Normalised images (N, C, H, W); and masks int64 (N, H, W), each pixel 0 … K − 1 or 255 (void)."""


class Segmenter(Task):
    """Trains and evaluates a network that gives each pixel a class.

    The loss is cross-entropy over the pixels that are not void, in float32, plus that of the auxiliary head.

    Args:
        net: (N, C, H, W) images to (N, K, H, W) logits; in training maybe ``LogitsWithAux``.
        num_classes: K.
        aux_head_weight: of the loss of the auxiliary head (0.5 with the authors of Bag of Tricks and torchvision).
        image_size: side of the images in pixels. Stored in the checkpoint for inference, like the next three.
        mean: mean of the images per channel, as subtracted by the data module.
        std: standard deviation of the images per channel, by which the data module divides.
        class_names: names of the classes, in the order of the logits.
        **optimization: see :class:`~lit_models.tasks.task.Task`.
    """

    def __init__(
        self,
        net: nn.Module,
        num_classes: int,
        aux_head_weight: float = 0.5,
        image_size: int | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        class_names: tuple[str, ...] | None = None,
        **optimization: Any,
    ) -> None:
        super().__init__(net, **optimization)
        describe(self, net, schedule=self.schedule)
        self.num_classes = num_classes
        self.aux_head_weight = aux_head_weight
        self.class_names = class_names or tuple(map(str, range(num_classes)))
        self.val_scores, self.test_scores = SegmentationScores(num_classes), SegmentationScores(num_classes)
        self.val_loss, self.test_loss = SumMetric(nan_strategy="disable"), SumMetric(nan_strategy="disable")

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) normalised images to (N, K, H, W) logits."""
        return self.net(images)

    def loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Mean cross-entropy of the labelled pixels; 0 where all are void."""
        return _summed(logits, masks) / (masks != VOID).sum().clamp(min=1)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, masks = batch
        output = self.net(images)
        logits, aux_logits = output if isinstance(output, LogitsWithAux) else (output, ())
        loss = self.loss(logits, masks)
        self.log_step({"train/loss": loss})
        for aux in aux_logits:
            loss = loss + self.aux_head_weight * self.loss(aux, masks)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, self.val_loss, self.val_scores)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, self.test_loss, self.test_scores)

    def _evaluate(self, batch: Batch, losses: SumMetric, scores: SegmentationScores) -> None:
        images, masks = batch
        if not len(images):  # a rank may have none to evaluate
            return
        logits = self(images)
        losses.update(_summed(logits, masks))
        scores.update(logits.argmax(1), masks)

    def on_validation_epoch_end(self) -> None:
        self._log_scores(self.val_loss, self.val_scores, "val")

    def on_test_epoch_end(self) -> None:
        self._log_scores(self.test_loss, self.test_scores, "test")

    def _log_scores(self, losses: SumMetric, scores: SegmentationScores, stage: str) -> None:
        found = scores.compute()
        self.log(f"{stage}/loss", losses.compute() / found["pixels"].float())
        self.log_dict({f"{stage}/{name}": found[name].float() for name in ("pixel_accuracy", "miou")}, prog_bar=True)
        self.log_dict(
            {f"{stage}/iou/{name}": iou.float() for name, iou in zip(self.class_names, found["iou"], strict=True)}
        )
        losses.reset()
        scores.reset()

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """uint8 (N, H, W), the class of each pixel."""
        return self(batch[0]).argmax(1).to(torch.uint8)

    def check_images(self, image_shape: tuple[int, int, int]) -> None:
        """Show the network one black image (C, H, W), in evaluation mode; nothing of it changes.

        Raises:
            MisconfigurationException: with the network's own reason where it can't take such an image, and where
                something else than logits of its pixels comes out.
        """
        check_images(self.net, image_shape, self.num_classes, per_pixel=True)

    @property
    def logs(self) -> tuple[str, ...]:
        """Patterns of the metrics that a fit logs."""
        return "lr", "train/loss", "val/loss", "val/pixel_accuracy", "val/miou", "val/iou/*"

    def explain(self, trainer: L.Trainer) -> dict[str, str]:
        loss = f"cross-entropy of the pixels, auxiliary head × {self.aux_head_weight:g}"
        return super().explain(trainer) | {"loss": loss}


def _summed(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy summed over the labelled pixels."""
    return F.cross_entropy(logits.float(), masks, ignore_index=VOID, reduction="sum")
