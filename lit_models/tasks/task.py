"""What all tasks share: the network, its optimizer, and the learning rate at every step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import lightning as L
import torch
from lightning.pytorch.plugins import Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lit_models.errors import check_choice
from lit_models.settings import name_of
from lit_models.tasks.explanation import recipe
from lit_models.tasks.initial_weights import start_from
from lit_models.tasks.logging_steps import is_logging_step
from lit_models.tasks.optimization import (
    check_layer_decay,
    check_optimizer,
    global_batch_size,
    make_optimizer,
    restore_settings,
    settings_of,
    take_parameters,
    unscaled,
)
from lit_models.tasks.restored_state import check_kinds, check_optimizer_state
from lit_models.tasks.schedules import (
    Factor,
    Schedule,
    ScheduleName,
    cosine,
    polynomial,
    steps_down,
    steps_per_epoch,
    warmed_up,
)


class Task(L.LightningModule):
    """A network and how it is optimized; a subclass has the steps.

    Args:
        net: the network.
        optimizer: one of ``timm.optim.list_optimizers()``: ``sgd`` (with Nesterov's momentum), ``momentum`` (without),
            ``adamw``, ``lamb``, …
        lr: peak learning rate.
        lr_batch_size: b₀, the number of images in an optimizer step that ``lr`` is meant for. The peak is then lr·b/b₀
            with b = the data module's batch size × devices × accumulated batches (Bag of Tricks, section 3.1).
        weight_decay: factor of the decay.
        no_bias_decay: exempt biases and all 1-D parameters, such as those of batch normalisation, from it.
        momentum: for the optimizers that have one.
        layer_decay: r ≤ 1, by which the learning rate falls from each layer to the one before; for networks with
            timm's ``group_matcher``, such as ``ResNet``. In detectors and segmenters it falls from each group of
            layers of such a backbone: from stage to stage, by two blocks of ``VanillaNet``.
        optimizer_args: any other argument of the optimizer, by name.
        schedule: of the learning rate, per optimizer step: a name, or a function from the number of steps that the
            warm-up leaves to the factor of the peak in step 0, 1, …; in YAML its import path, or the ``class_path`` and
            ``init_args`` of a class with ``__call__`` and :func:`~lit_models.settings.keeps_arguments`.
        milestones: epochs after which ``step`` divides the learning rate by ten.
        min_lr: where ``cosine`` and ``polynomial`` end.
        head_lr_scale: factor of the learning rate of the head, the parameters that the network's ``head_parameters``
            returns, or those of its classifier.
        weights: what the network starts from, or the backbone of a detector or segmenter: a run directory, a checkpoint
            or a file of weights, see :func:`~lit_models.tasks.initial_weights.start_from`. A checkpoint of training has
            weights of its own and doesn't ask for these again.

    Raises:
        MisconfigurationException: for an optimizer timm does not have, an unknown schedule, a number out of its range,
            ``layer_decay`` with a network that does not number its layers, and ``head_lr_scale`` with one that does not
            know its head; in a fit, for ``lr_batch_size`` without a data module, and for a ``step`` schedule without
            milestones.
    """

    def __init__(
        self,
        net: nn.Module,
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
        head_lr_scale: float = 1.0,
        weights: Annotated[str, Path] | None = None,
    ) -> None:
        super().__init__()
        check_optimizer(optimizer)
        check_layer_decay(net, layer_decay)
        if not callable(schedule):
            check_choice("schedule", schedule, ScheduleName, MisconfigurationException)
        if lr_batch_size is not None and lr_batch_size < 1:
            raise MisconfigurationException(f"lr_batch_size is {lr_batch_size}; give the images of an optimizer step")
        if not 0 < lr < math.inf:
            raise MisconfigurationException(f"lr is {lr}; give a positive number")
        for name, value, most in (
            ("weight_decay", weight_decay, math.inf),
            ("momentum", momentum, 1.0),
            ("min_lr", min_lr, lr),
            ("head_lr_scale", head_lr_scale, math.inf),
        ):
            if not 0 <= value <= most:
                raise MisconfigurationException(f"{name} is {value}; give a number from 0 to {most:g}")
        if any(epoch < 0 for epoch in milestones):
            raise MisconfigurationException(f"milestones are {milestones}; give numbers of epochs, from 0 on")
        if weights is not None:
            start_from(net, weights)
        # Convolutions are fastest in channels_last on GPUs with tensor cores and on CPUs.
        self.net = net.to(memory_format=torch.channels_last)
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
        self.head_lr_scale = head_lr_scale
        self._configured_lr = lr
        self._settings: Any = None
        self.step_metrics: dict[str, Tensor] = {}
        """Of the training step under way, for the loggers."""
        self.warmup_steps = 0
        """m, written by the warm-up callback before the optimizer is configured."""

    def log_step(self, metrics: dict[str, Tensor]) -> None:
        """Let the loggers have what a training step found, tensors () on the device, with its learning rate."""
        groups = self.optimizers().param_groups  # type: ignore[union-attr]
        # As a tensor on the host: Lightning would copy a number to the device, and synchronise.
        learning_rate = torch.tensor(max(group["lr"] for group in groups))
        self.step_metrics |= {name: value.detach() for name, value in metrics.items()} | {"lr": learning_rate}

    def on_train_batch_end(self, *_: Any) -> None:
        # Not in each step, as a call of log takes longer than a small layer; nor on the progress bar, which would wait
        # for the device: it has the loss from StopOnNonFinite.
        if self.step_metrics and is_logging_step(self.trainer):
            self.log_dict(self.step_metrics)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        self._configured_lr = self.lr
        optimizer = self._make_optimizer()
        scheduler = LambdaLR(optimizer, self.lr_factor())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _make_optimizer(self) -> Optimizer:
        return make_optimizer(
            self.net,
            self.optimizer_name,
            lr=self.peak_lr,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            no_bias_decay=self.no_bias_decay,
            layer_decay=self.layer_decay,
            head_lr_scale=self.head_lr_scale,
            **self.optimizer_args,
        )

    def renew_parameters(self) -> None:
        """Have the optimizer train the parameters that the network has by now; see :func:`take_parameters`."""
        take_parameters(self.optimizers(use_pl_optimizer=False), self._make_optimizer())  # type: ignore[arg-type]

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
        if self.lr != self._configured_lr:  # Lightning's finder has set it, and left the schedule as it was
            self.trainer.strategy.setup_optimizers(self.trainer)
        self._settings = settings_of(self.optimizers(), self.optimizer_args)

    def on_train_start(self) -> None:
        """A checkpoint brings the settings of its optimizer with its state; those of this fit hold."""
        for module in self.net.modules():
            if hasattr(module, "check_trained"):
                module.check_trained()  # type: ignore[operator]
        check_optimizer_state(self.optimizers())
        if self._settings is not None:  # none in a trial of Lightning's tuner, which has a schedule of its own
            restore_settings(self.optimizers(), self.lr_schedulers(), self._settings)

    def on_fit_end(self) -> None:
        self._settings = None

    def explain(self, trainer: L.Trainer) -> dict[str, str]:
        """What ``fathom explain`` says of this module, by topic."""
        return recipe(self)

    @property
    def hparams_initial(self) -> dict[str, Any]:  # type: ignore[override]
        """For loggers: with lists in the place of tuples, so that any YAML loader reads their ``hparams.yaml``."""
        return {name: _listed(value) for name, value in super().hparams_initial.items()}

    @property
    def peak_lr(self) -> float:
        """``lr``, scaled to the batch size of this fit where it is meant for another."""
        if self.lr_batch_size is None:
            return self.lr
        return self.lr * global_batch_size(self.trainer) / self.lr_batch_size

    def lr_factor(self) -> Factor:
        """The schedule of this fit as a factor of ``peak_lr``.

        Raises:
            MisconfigurationException: If the fit has no end, and the schedule needs one; for steps without milestones.
        """
        if self.schedule == "step" and not self.milestones:
            raise MisconfigurationException(
                "schedule: step lowers the learning rate at its milestones, and there are none: give"
                " --model.milestones, or take the schedule constant"
            )
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
            named = {"cosine": cosine, "polynomial": polynomial}
            decay = named[self.schedule](steps, floor) if isinstance(self.schedule, str) else self.schedule(steps)
        return warmed_up(decay, self.warmup_steps)

    def _milestone_steps(self) -> list[int]:
        """Milestones in optimizer steps after the warm-up; they are counted from the beginning of the fit."""
        if self.schedule == "constant":
            return []
        return [round(epoch * steps_per_epoch(self.trainer)) - self.warmup_steps for epoch in self.milestones]


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _listed(inner) for name, inner in value.items()}
    return [_listed(inner) for inner in value] if isinstance(value, tuple | list) else value
