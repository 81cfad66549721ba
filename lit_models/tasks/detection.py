"""The LightningModule around every network that detects objects."""

from __future__ import annotations

from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lit_models.cost import count_macs
from lit_models.errors import check_choice
from lit_models.tasks.average_precision import COCOAveragePrecision, VOCAveragePrecision
from lit_models.tasks.check_images import black_image
from lit_models.tasks.description import describe
from lit_models.tasks.task import Task
from lit_models.transfer.targets import Detections, Targets

Batch = tuple[Tensor, dict[str, Any]]
"""Normalised images (N, C, H, W), each at the top left of its canvas; and of all images one after another ``boxes``
(B, 4), ``labels`` and ``difficult`` (B,), with the numbers of boxes ``counts``, the images' ``sizes`` on the canvas,
``original_sizes`` and ``ids``, each a list of N. In training there may be ``masks`` (B, H, W), and in evaluation
``run_lengths`` and ``areas``, each a list of B."""
Score = Literal["voc07", "voc", "coco", "coco_masks"]
"""Average precision as in Pascal VOC 2007 (11 points), as in VOC 2010 and later (area), both at an IoU of 0.5, and as
in COCO (mean over ten IoU): of boxes, or of boxes and masks."""


class Detector(Task):
    """Trains and evaluates a network that detects objects.

    Nothing here synchronises with the device between logging steps. torchvision's parts do, in every step: how many
    boxes match an anchor, are sampled, or are left by non-maximum suppression is the shape of what is computed next.

    Args:
        net: ``FasterRCNN``, ``MaskRCNN``, ``RetinaNet``, or any network that takes images (N, C, H, W), their sizes,
            and in training targets, and returns losses by name in training and detections in evaluation.
        num_classes: K, without the background.
        score: See ``Score``.
        image_size: short side of the images in pixels. Stored in the checkpoint for inference, like the next three.
        mean: mean of the images per channel, as subtracted by the data module.
        std: standard deviation of the images per channel, by which the data module divides.
        class_names: names of the classes, in the order of the labels.
        **optimization: see :class:`~lit_models.tasks.task.Task`.
    """

    def __init__(
        self,
        net: nn.Module,
        num_classes: int,
        score: Score = "voc07",
        image_size: int | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        class_names: tuple[str, ...] | None = None,
        **optimization: Any,
    ) -> None:
        super().__init__(net, **optimization)
        describe(self, net, schedule=self.schedule)
        self.num_classes = num_classes
        self.class_names = class_names or tuple(map(str, range(num_classes)))
        self.val_score, self.test_score = _score(score, num_classes), _score(score, num_classes)

    def forward(self, images: Tensor, sizes: list[tuple[int, int]] | None = None) -> Detections:
        """Detections of (N, C, H, W) normalised images, in evaluation mode; ``sizes`` are theirs on the canvas."""
        return self.net(images, sizes or [tuple(images.shape[-2:])] * len(images))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, targets = batch
        losses = self.net(images, targets["sizes"], by_image(targets))
        loss = torch.stack(list(losses.values())).sum()
        self.log_step({"train/loss": loss} | {f"train/{name}": part for name, part in losses.items()})
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, self.val_score)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, self.test_score)

    def _evaluate(self, batch: Batch, score: VOCAveragePrecision | COCOAveragePrecision) -> None:
        images, targets = batch
        # A rank may have no image to evaluate.
        score.update(self(images, targets["sizes"]) if len(images) else [], targets)

    def on_validation_epoch_end(self) -> None:
        self._log_score(self.val_score, "val")

    def on_test_epoch_end(self) -> None:
        self._log_score(self.test_score, "test")

    def _log_score(self, score: VOCAveragePrecision | COCOAveragePrecision, stage: str) -> None:
        found = score.compute()
        score.reset()
        self.log_dict({f"{stage}/{name}": value for name, value in found.items() if value.ndim == 0}, prog_bar=True)
        for name in [name for name in ("ap", "mask_ap") if name in found]:
            by_class = zip(self.class_names, found[name].reshape(-1), strict=True)
            self.log_dict({f"{stage}/{name}/{label}": value for label, value in by_class})

    def predict_step(self, batch: Batch, batch_idx: int) -> Detections:
        """Detections of each image, their boxes in pixels of the image as it was before it was resized."""
        images, targets = batch
        detections = self(images, targets["sizes"])
        for detection, size, original in zip(detections, targets["sizes"], targets["original_sizes"], strict=True):
            (height, width), (full_height, full_width) = size, original
            scale = detection["boxes"].new_tensor([full_width / width, full_height / height] * 2)
            detection["boxes"] = detection["boxes"] * scale
        return detections

    def check_images(self, image_shape: tuple[int, int, int]) -> None:
        """Show the network one black image (C, H, W), in evaluation mode; nothing of it changes.

        Raises:
            MisconfigurationException: with the network's own reason where it can't take such an image.
        """
        with black_image(self.net, image_shape) as image:
            self.net(image, [image_shape[1:]])

    def macs(self, image_shape: tuple[int, int, int]) -> int:
        """Multiply-adds of the backbone for an image (C, H, W); those of the heads depend on what is in it."""
        return count_macs(getattr(self.net, "backbone", self.net), image_shape)

    @property
    def logs(self) -> tuple[str, ...]:
        """Patterns of the metrics that a fit logs."""
        return "lr", "train/*", "val/*"

    def explain(self, trainer: L.Trainer) -> dict[str, str]:
        return super().explain(trainer) | {"loss": "the parts that the network returns, summed"}


def by_image(targets: dict[str, Any]) -> Targets:
    """The boxes, labels, difficulties and masks of a batch, image by image: views, no copies."""
    counts = targets["counts"]
    given = [name for name in ("boxes", "labels", "difficult", "masks") if name in targets]
    columns = {name: targets[name].split(counts) for name in given}
    return [{name: column[i] for name, column in columns.items()} for i in range(len(counts))]


def _score(name: Score, num_classes: int) -> VOCAveragePrecision | COCOAveragePrecision:
    check_choice("score", name, Score, MisconfigurationException)
    if name in ("coco", "coco_masks"):
        return COCOAveragePrecision(num_classes, masks=name == "coco_masks")
    return VOCAveragePrecision(num_classes, "11-point" if name == "voc07" else "area")
