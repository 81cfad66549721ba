"""The LightningModule around every classification network."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from lit_models.errors import check_choice
from lit_models.interfaces import LogitsWithAux
from lit_models.settings import name_of
from lit_models.tasks.description import describe
from lit_models.tasks.losses import Loss, LossName, SmoothOver, compute_loss, share_over_all
from lit_models.tasks.task import Task

Batch = tuple[Tensor, Tensor]
"""Normalised images (N, C, H, W), and class indices (N,) or class probabilities (N, K)."""


class ImageClassifier(Task):
    """Trains and evaluates a network that classifies images.

    Args:
        net: (N, C, H, W) images to (N, K) logits.
        num_classes: K.
        loss: cross-entropy, the binary one of each class on its own, or a function of logits (N, K) in float32 and
            targets, classes (N,) or probabilities (N, K); in YAML its import path, or the ``class_path`` and
            ``init_args`` of an ``nn.Module``. Evaluation always reports cross-entropy.
        label_smoothing: ε.
        smooth_over: the classes that share ε: ``all``, the true one with them (torch, timm), or the ``others`` alone
            (Bag of Tricks), see :data:`~lit_models.tasks.losses.SmoothOver`.
        aux_weight: of the loss of each auxiliary head, where the network has any (GoogLeNet: 0.3).
        image_size: side of the images in pixels. Stored in the checkpoint for inference, like the next three.
        mean: mean of the training images per channel, as subtracted by the data module.
        std: standard deviation of the training images per channel, by which the data module divides.
        class_names: names of the classes, in the order of the logits.
        **optimization: see :class:`~lit_models.tasks.task.Task`.
    """

    def __init__(
        self,
        net: nn.Module,
        num_classes: int,
        loss: Loss = "cross_entropy",
        label_smoothing: float = 0.0,
        smooth_over: SmoothOver = "all",
        aux_weight: float = 0.3,
        image_size: int | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        class_names: tuple[str, ...] | None = None,
        **optimization: Any,
    ) -> None:
        super().__init__(net, **optimization)
        if not callable(loss):
            check_choice("loss", loss, LossName, MisconfigurationException)
        describe(self, net, loss=loss, schedule=self.schedule)
        if image_size and mean:  # for Lightning's model summary and ``to_onnx``
            self.example_input_array = torch.zeros(1, len(mean), image_size, image_size)
        self.num_classes = num_classes
        self.loss_name = name_of(loss)
        self.loss_function: Loss = loss
        self.label_smoothing = share_over_all(label_smoothing, num_classes, smooth_over)
        self.aux_weight = aux_weight

        self.train_top1, self.train_mixed_top1 = _accuracy(num_classes, 1), _mean()
        self.val_loss, self.val_accuracy = _mean(), _accuracies(num_classes, "val")
        self.test_loss, self.test_accuracy = _mean(), _accuracies(num_classes, "test")

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) normalised images to (N, K) logits."""
        return self.net(images)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of (N, K) logits with (N,) classes or (N, K) probabilities, in float32, labels smoothed."""
        return compute_loss(self.loss_function, logits, targets, self.label_smoothing)

    def training_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """The objective of a training step with logits (N, K); a subclass with another objective overrides it."""
        return self.loss(logits, batch[1])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, targets = batch
        logits, aux_logits = self._training_logits(images)
        loss = self.training_loss(logits, batch)
        self.log_step({"train/loss": loss})
        for aux in aux_logits:
            loss = loss + self.aux_weight * self.loss(aux, targets)
        self._count_hits(logits.detach(), targets)
        return loss

    def _training_logits(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Logits (N, K), and those of the auxiliary heads."""
        output = self.net(images)
        return output if isinstance(output, LogitsWithAux) else (output, ())

    def _count_hits(self, logits: Tensor, targets: Tensor) -> None:
        """Top-1; for mixed images, under another name, the probability that the target gives to the predicted class."""
        if targets.is_floating_point():
            self.train_mixed_top1.update(targets.gather(1, logits.argmax(1, keepdim=True)))
        else:
            self.train_top1.update(logits, targets)

    def on_train_epoch_end(self) -> None:
        # Once, and not in each step: every call of log copies what Lightning knows of the metric.
        for name, metric in (("train/top1", self.train_top1), ("train/mixed_top1", self.train_mixed_top1)):
            if metric.update_called:
                self.log(name, metric)

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Logits (N, K), for callbacks that look at them."""
        return self._evaluation_step(batch, self.val_loss, self.val_accuracy, "val/loss")

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Logits (N, K)."""
        return self._evaluation_step(batch, self.test_loss, self.test_accuracy, "test/loss")

    def _evaluation_step(self, batch: Batch, mean_loss: MeanMetric, accuracy: MetricCollection, name: str) -> Tensor:
        images, targets = batch
        if len(images):
            logits = self(images)
            mean_loss.update(F.cross_entropy(logits.float(), targets, reduction="none"))
            accuracy.update(logits, targets)
        else:  # a rank may have none to evaluate
            logits = images.new_empty(0, self.num_classes)
        self.log(name, mean_loss)
        self.log_dict(accuracy, prog_bar=True)
        return logits

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """(N, K) class probabilities."""
        return self(batch[0]).float().softmax(1)

    @property
    def logs(self) -> tuple[str, ...]:
        """Names of the metrics that a fit logs."""
        return "lr", "train/loss", "train/top1", "train/mixed_top1", "val/loss", *map(str, self.val_accuracy)

    def explain(self, trainer: L.Trainer) -> dict[str, str]:
        epsilon, others = self.label_smoothing, self.label_smoothing / self.num_classes
        smoothing = (
            f"label smoothing to {1 - epsilon + others:.4g} for the true class, {others:.4g} for each other"
            if epsilon
            else "no label smoothing"
        )
        return super().explain(trainer) | {"loss": f"{self.loss_name.replace('_', '-')}, {smoothing}"}


def _mean() -> MeanMetric:
    # Any other strategy synchronises with the device, and leaves the NaN of a diverged network out of the mean. This
    # one ignores the weights of an update, so the values of single images are handed over.
    return MeanMetric(nan_strategy="disable")


def _accuracy(num_classes: int, top_k: int) -> MulticlassAccuracy:
    # Checking the arguments would synchronise with the device in every step.
    return MulticlassAccuracy(num_classes, top_k=top_k, average="micro", validate_args=False)


def _accuracies(num_classes: int, stage: str) -> MetricCollection:
    """Top-1, and from five classes on top-5."""
    top_ks = [1, 5] if num_classes >= 5 else [1]
    return MetricCollection({f"{stage}/top{k}": _accuracy(num_classes, k) for k in top_ks}, compute_groups=False)
