"""The LightningModule around every classification network."""

from __future__ import annotations

import math
from difflib import get_close_matches
from typing import Any, Literal

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from timm.optim import create_optimizer_v2, list_optimizers
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from lit_models.interfaces import LogitsWithAux
from lit_models.schedules import Factor, cosine, steps_down, steps_per_epoch, warmed_up

Batch = tuple[Tensor, Tensor]
"""Normalised images (N, C, H, W), and class indices (N,) or class probabilities (N, K)."""


class ImageClassifier(L.LightningModule):
    """Trains and evaluates any network of images to logits.

    Args:
        net: (N, C, H, W) images to (N, K) logits.
        num_classes: K.
        optimizer: one of ``timm.optim.list_optimizers()``: ``sgd`` (with Nesterov's momentum), ``momentum`` (without),
            ``adamw``, ``lamb``, …
        lr: peak learning rate.
        weight_decay: factor of the decay.
        no_bias_decay: exempt biases and all 1-D parameters, such as those of batch normalisation, from it.
        momentum: for the optimizers that have one.
        optimizer_args: any other argument of the optimizer, by name.
        schedule: of the learning rate, per optimizer step. The cosine spans what the warm-up leaves.
        milestones: epochs after which ``step`` divides the learning rate by ten.
        min_lr: where the cosine ends.
        label_smoothing: ε of the cross-entropy; the true class gets 1 − ε + ε/K.
        aux_weight: of the loss of each auxiliary head, where the network has any (GoogLeNet: 0.3).
        image_size: side of the images in pixels. Kept, like mean and std, for whoever loads the checkpoint.
        mean: of the training images per channel, as subtracted by the data module.
        std: likewise.

    Raises:
        MisconfigurationException: for an optimizer timm does not have.
    """

    def __init__(
        self,
        net: nn.Module,
        num_classes: int,
        optimizer: str = "sgd",
        lr: float = 0.1,
        weight_decay: float = 1e-4,
        no_bias_decay: bool = True,
        momentum: float = 0.9,
        optimizer_args: dict[str, Any] | None = None,
        schedule: Literal["cosine", "step", "constant"] = "cosine",
        milestones: tuple[float, ...] = (),
        min_lr: float = 0.0,
        label_smoothing: float = 0.0,
        aux_weight: float = 0.3,
        image_size: int | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__()
        if optimizer.lower() not in list_optimizers():
            nearest = (
                ", ".join(get_close_matches(optimizer, map(str, list_optimizers()))) or "sgd, momentum, adamw, lamb"
            )
            raise MisconfigurationException(f"timm.optim has no optimizer {optimizer!r}; near it are {nearest}")
        # LightningCLI hands over the arguments as written, the network's among them: a checkpoint is then complete
        # in primitives. Constructed in Python, ``net`` is an object, which a checkpoint must not hold.
        self.save_hyperparameters(ignore=[] if _given_hyperparameters.get() else ["net"])
        self._forget_where_weights_came_from()
        # Convolutions are fastest in channels_last on GPUs with tensor cores and on CPUs.
        self.net = net.to(memory_format=torch.channels_last)
        self.num_classes = num_classes
        self.optimizer_name = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.no_bias_decay = no_bias_decay
        self.momentum = momentum
        self.optimizer_args = optimizer_args or {}
        self.schedule = schedule
        self.milestones = milestones
        self.min_lr = min_lr
        self.label_smoothing = label_smoothing
        self.aux_weight = aux_weight
        self.warmup_steps = 0
        """m, written by the warm-up callback before the optimizer is configured."""

        self.train_top1, self.train_mixed_top1 = _accuracy(num_classes, 1), _mean()
        self.val_loss, self.val_accuracy = _mean(), _accuracies(num_classes, "val")
        self.test_loss, self.test_accuracy = _mean(), _accuracies(num_classes, "test")

    def _forget_where_weights_came_from(self) -> None:
        """A checkpoint has weights: to load it must not need those that the network started from."""
        net = self.hparams.get("net", {})
        if net.get("init_args", {}).get("pretrained"):
            self.hparams["net"] = {**net, "init_args": {**net["init_args"], "pretrained": False}}

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) normalised images to (N, K) logits."""
        return self.net(images)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of (N, K) logits with (N,) classes or (N, K) probabilities, in float32."""
        return F.cross_entropy(logits.float(), targets, label_smoothing=self.label_smoothing)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, targets = batch
        logits, aux_logits = self._training_logits(images)
        loss = self.loss(logits, targets)
        self.log("train/loss", loss, prog_bar=True)
        for aux in aux_logits:
            loss = loss + self.aux_weight * self.loss(aux, targets)
        self._log_training_accuracy(logits.detach(), targets)
        # As a tensor on the host: Lightning would copy a number to the device, and wait for it.
        self.log("lr", torch.tensor(self.optimizers().param_groups[0]["lr"]))  # type: ignore[union-attr]
        return loss

    def _training_logits(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Logits (N, K), and those of the auxiliary heads."""
        output = self.net(images)
        return output if isinstance(output, LogitsWithAux) else (output, ())

    def _log_training_accuracy(self, logits: Tensor, targets: Tensor) -> None:
        """Top-1; for mixed images, under another name, the probability that the target gives to the predicted class."""
        if targets.is_floating_point():
            hits = targets.gather(1, logits.argmax(1, keepdim=True))
            self.train_mixed_top1.update(hits)
            self.log("train/mixed_top1", self.train_mixed_top1, on_step=False, on_epoch=True)
        else:
            self.train_top1.update(logits, targets)
            self.log("train/top1", self.train_top1, on_step=False, on_epoch=True)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluation_step(batch, self.val_loss, self.val_accuracy, "val/loss")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluation_step(batch, self.test_loss, self.test_accuracy, "test/loss")

    def _evaluation_step(self, batch: Batch, mean_loss: MeanMetric, accuracy: MetricCollection, name: str) -> None:
        images, targets = batch
        logits = self(images)
        mean_loss.update(F.cross_entropy(logits.float(), targets, reduction="none"))
        accuracy.update(logits, targets)
        self.log(name, mean_loss)
        self.log_dict(accuracy, prog_bar=True)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """(N, K) class probabilities."""
        return self(batch[0]).float().softmax(1)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = create_optimizer_v2(
            self.net,
            opt=self.optimizer_name,
            lr=self.lr,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            filter_bias_and_bn=self.no_bias_decay,
            **self.optimizer_args,
        )
        scheduler = LambdaLR(optimizer, self.lr_factor())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def lr_factor(self) -> Factor:
        """The schedule of this fit as a factor of ``lr``.

            Raises:
        MisconfigurationException: where a cosine has no end.
        """
        total = self.trainer.estimated_stepping_batches
        if self.warmup_steps >= total:
            rank_zero_warn(f"This fit of {total} steps ends within its warm-up of {self.warmup_steps} steps.")
        if self.schedule == "cosine":
            if math.isinf(total):
                raise MisconfigurationException(
                    "a cosine schedule needs to know where it ends: set --trainer.max_epochs or --trainer.max_steps"
                )
            decay = cosine(max(int(total) - self.warmup_steps, 1), floor=self.min_lr / self.lr)
        else:
            decay = steps_down(self._milestone_steps())
        return warmed_up(decay, self.warmup_steps)

    def _milestone_steps(self) -> list[int]:
        """Milestones in optimizer steps after the warm-up; they are counted from the beginning of the fit."""
        if self.schedule == "constant":
            return []
        return [round(epoch * steps_per_epoch(self.trainer)) - self.warmup_steps for epoch in self.milestones]


def _mean() -> MeanMetric:
    # Any other strategy waits for the device, and leaves the NaN of a diverged network out of the mean. This one
    # ignores the weights of an update, so the values of single images are handed over.
    return MeanMetric(nan_strategy="disable")


def _accuracy(num_classes: int, top_k: int) -> MulticlassAccuracy:
    # Checking the arguments would wait for the device in every step.
    return MulticlassAccuracy(num_classes, top_k=top_k, average="micro", validate_args=False)


def _accuracies(num_classes: int, stage: str) -> MetricCollection:
    """Top-1, and from five classes on top-5."""
    top_ks = [1, 5] if num_classes >= 5 else [1]
    return MetricCollection({f"{stage}/top{k}": _accuracy(num_classes, k) for k in top_ks}, compute_groups=False)
