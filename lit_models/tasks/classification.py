"""The LightningModule around every classification network."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.plugins import Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from lit_models.interfaces import LogitsWithAux
from lit_models.settings import name_of
from lit_models.tasks.description import describe
from lit_models.tasks.explanation import recipe
from lit_models.tasks.logging_steps import is_logging_step
from lit_models.tasks.losses import Loss, SmoothOver, compute_loss, share_over_all
from lit_models.tasks.optimization import (
    check_layer_decay,
    check_optimizer,
    global_batch_size,
    make_optimizer,
    restore_settings,
    settings_of,
    unscaled,
)
from lit_models.tasks.restored_state import check_kinds, check_optimizer_state
from lit_models.tasks.schedules import Factor, Schedule, cosine, steps_down, steps_per_epoch, warmed_up

Batch = tuple[Tensor, Tensor]
"""Normalised images (N, C, H, W), and class indices (N,) or class probabilities (N, K)."""


class ImageClassifier(L.LightningModule):
    """Trains and evaluates a network that classifies images.

    Args:
        net: (N, C, H, W) images to (N, K) logits.
        num_classes: K.
        optimizer: one of ``timm.optim.list_optimizers()``: ``sgd`` (with Nesterov's momentum), ``momentum`` (without),
            ``adamw``, ``lamb``, …
        lr: peak learning rate.
        lr_batch_size: b₀, the number of images in an optimizer step that ``lr`` is meant for. The peak is then lr·b/b₀
            with b = the data module's batch size × devices × accumulated batches (Bag of Tricks, section 3.1).
        weight_decay: factor of the decay.
        no_bias_decay: exempt biases and all 1-D parameters, such as those of batch normalisation, from it.
        momentum: for the optimizers that have one.
        layer_decay: r ≤ 1, by which the learning rate falls from each layer to the one before; for networks with
            timm's ``group_matcher``, such as ``VanillaNet``.
        optimizer_args: any other argument of the optimizer, by name.
        schedule: of the learning rate, per optimizer step: a name, or a function from the number of steps that the
            warm-up leaves to the factor of the peak in step 0, 1, …; in YAML its import path, or the ``class_path`` and
            ``init_args`` of a class with ``__call__`` and :func:`~lit_models.settings.keeps_arguments`.
        milestones: epochs after which ``step`` divides the learning rate by ten.
        min_lr: where the cosine ends.
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

    Raises:
        MisconfigurationException: for an optimizer timm does not have, a number out of its range, and ``layer_decay``
            with a network that does not number its layers; in a fit, for ``lr_batch_size`` without a data module.
    """

    def __init__(
        self,
        net: nn.Module,
        num_classes: int,
        optimizer: str = "sgd",
        lr: float = 0.1,
        lr_batch_size: int | None = None,
        weight_decay: float = 1e-4,
        no_bias_decay: bool = True,
        momentum: float = 0.9,
        layer_decay: float | None = None,
        optimizer_args: dict[str, Any] | None = None,
        schedule: Schedule = "cosine",
        milestones: tuple[float, ...] = (),
        min_lr: float = 0.0,
        loss: Loss = "cross_entropy",
        label_smoothing: float = 0.0,
        smooth_over: SmoothOver = "all",
        aux_weight: float = 0.3,
        image_size: int | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        class_names: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__()
        check_optimizer(optimizer)
        check_layer_decay(net, layer_decay)
        if lr_batch_size is not None and lr_batch_size < 1:
            raise MisconfigurationException(f"lr_batch_size is {lr_batch_size}; give the images of an optimizer step")
        if not 0 < lr < math.inf:
            raise MisconfigurationException(f"lr is {lr}; give a positive number")
        for name, value, most in (
            ("weight_decay", weight_decay, math.inf),
            ("momentum", momentum, 1.0),
            ("min_lr", min_lr, lr),
        ):
            if not 0 <= value <= most:
                raise MisconfigurationException(f"{name} is {value}; give a number from 0 to {most:g}")
        if any(epoch < 0 for epoch in milestones):
            raise MisconfigurationException(f"milestones are {milestones}; give numbers of epochs, from 0 on")
        describe(self, net, loss=loss, schedule=schedule)
        # Convolutions are fastest in channels_last on GPUs with tensor cores and on CPUs.
        self.net = net.to(memory_format=torch.channels_last)
        self.num_classes = num_classes
        self.optimizer_name = optimizer
        self.lr = lr
        self.lr_batch_size = lr_batch_size
        self.weight_decay = weight_decay
        self.no_bias_decay = no_bias_decay
        self.momentum = momentum
        self.layer_decay = layer_decay
        self.optimizer_args = optimizer_args or {}
        self.schedule: Schedule = schedule
        self.milestones = milestones
        self.min_lr = min_lr
        self.loss_name = name_of(loss)
        self.loss_function: Loss = loss
        self.label_smoothing = share_over_all(label_smoothing, num_classes, smooth_over)
        self.aux_weight = aux_weight
        self.warmup_steps = 0
        """m, written by the warm-up callback before the optimizer is configured."""

        self.step_metrics: dict[str, Tensor] = {}
        """Of the training step under way, for the loggers; a subclass with another objective may add to them."""
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
        groups = self.optimizers().param_groups  # type: ignore[union-attr]
        # As a tensor on the host: Lightning would copy a number to the device, and synchronise.
        self.step_metrics |= {"train/loss": loss.detach(), "lr": torch.tensor(max(group["lr"] for group in groups))}
        for aux in aux_logits:
            loss = loss + self.aux_weight * self.loss(aux, targets)
        self._count_hits(logits.detach(), targets)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        # Not in each step, as a call of log takes longer than a small layer; nor on the progress bar, which would wait
        # for the device: it has the loss from StopOnNonFinite.
        if is_logging_step(self.trainer):
            self.log_dict(self.step_metrics)

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
        optimizer = make_optimizer(
            self.net,
            self.optimizer_name,
            lr=self.peak_lr,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            no_bias_decay=self.no_bias_decay,
            layer_decay=self.layer_decay,
            **self.optimizer_args,
        )
        scheduler = LambdaLR(optimizer, self.lr_factor())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        optimizer.step(closure=unscaled(optimizer_closure, optimizer.optimizer, scaler))

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        # Not with the Trainer's own plugin, which refuses fused optimizers, as it does not know of optimizer_step.
        algorithm = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
        Precision.clip_gradients(self.trainer.precision_plugin, optimizer, gradient_clip_val or 0.0, algorithm)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_kinds(checkpoint["state_dict"], self.state_dict())

    def on_fit_start(self) -> None:
        self._settings = settings_of(self.optimizers(), self.optimizer_args)

    def on_train_start(self) -> None:
        """A checkpoint brings the settings of its optimizer with its state; those of this fit hold."""
        check_optimizer_state(self.optimizers())
        restore_settings(self.optimizers(), self.lr_schedulers(), self._settings)

    def explain(self, trainer: L.Trainer) -> dict[str, str]:
        """What ``fathom explain`` says of this module, by topic."""
        return recipe(self)

    @property
    def peak_lr(self) -> float:
        """``lr``, scaled to the batch size of this fit where it is meant for another."""
        if self.lr_batch_size is None:
            return self.lr
        return self.lr * global_batch_size(self.trainer) / self.lr_batch_size

    def lr_factor(self) -> Factor:
        """The schedule of this fit as a factor of ``peak_lr``.

        Raises:
            MisconfigurationException: If the fit has no end, and the schedule needs one.
        """
        total = self.trainer.estimated_stepping_batches
        if self.warmup_steps >= total:
            rank_zero_warn(f"This fit of {total} steps ends within its warm-up of {self.warmup_steps} steps.")
        if self.schedule in ("step", "constant"):
            decay = steps_down(self._milestone_steps())
        elif math.isinf(total):
            raise MisconfigurationException(
                f"a {name_of(self.schedule)} schedule needs to know where it ends: set --trainer.max_epochs or"
                " --trainer.max_steps"
            )
        else:
            steps = max(int(total) - self.warmup_steps, 1)
            floor = self.min_lr / self.peak_lr
            decay = cosine(steps, floor) if isinstance(self.schedule, str) else self.schedule(steps)
        return warmed_up(decay, self.warmup_steps)

    def _milestone_steps(self) -> list[int]:
        """Milestones in optimizer steps after the warm-up; they are counted from the beginning of the fit."""
        if self.schedule == "constant":
            return []
        return [round(epoch * steps_per_epoch(self.trainer)) - self.warmup_steps for epoch in self.milestones]


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
