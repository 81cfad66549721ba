"""Exponential moving average of the weights, beside the weights that are trained."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics import MeanMetric

from callbacks.run.internals import move_towards
from callbacks.run.ranks import broadcast_buffers
from lit_models import ImageClassifier
from lit_models.interfaces import BATCH_NORMS


class WeightAveraging(EMAWeightAveraging):
    """Validates, merges and saves averaged weights, each step's W' ← β·W' + (1 − β)·W; W goes on being trained.

    Averaged are all parameters and the running statistics of batch normalisation. What is set and not learned, such as
    λ and survival probabilities, is never averaged: the averaged network has the values of the trained one. A step
    that a gradient scaler skips for an overflow leaves the average as it is.

    ``val/top1`` is of the averaged weights and ``val/current_top1`` of the trained ones, on the same batches. It costs
    a second forward pass of the validation images and shows when the average overtakes. A checkpoint's ``state_dict``
    has the averaged weights, ``current_model_state`` the trained ones, from which a fit is resumed.

    Args:
        decay: β. The average spans about 1/(1 − β) optimizer steps, which a fit should have many times over.
        update_every_n_steps: optimizer steps from one update to the next.
        update_starting_at_step: optimizer steps before the first update, which copies the weights. Until then
            nothing is averaged, and the trained weights are what is validated and saved.

    Raises:
        MisconfigurationException: for a decay outside [0, 1).
    """

    logs = ("val/current_top1",)

    def __init__(
        self, decay: float = 0.9999, update_every_n_steps: int = 1, update_starting_at_step: int | None = None
    ) -> None:
        if not 0 <= decay < 1:
            raise MisconfigurationException(f"WeightAveraging needs a decay in [0, 1), not {decay}")
        if update_every_n_steps < 1:
            raise MisconfigurationException(f"WeightAveraging can't update every {update_every_n_steps} steps")
        super().__init__(
            decay=decay, update_every_n_steps=update_every_n_steps, update_starting_at_step=update_starting_at_step
        )
        self.decay = decay
        self._average_model: Average | None = None
        self._swapped = False
        """Whether the module has the averaged weights, and the average those that are trained."""
        self._stepped = False
        self._current_top1 = MeanMetric(nan_strategy="disable")

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # After a fit the module has the averaged weights; no other stage knows two of them.
        if stage == "fit":
            if trainer.precision in ("bf16-true", "16-true"):
                raise MisconfigurationException(
                    f"WeightAveraging can't average weights of {trainer.precision}, which would round small updates"
                    " away: take bf16-mixed or 16-mixed"
                )
            # Lightning would convert it after this hook, and the average be of another precision.
            trainer.precision_plugin.convert_module(pl_module)
            self._average_model = Average(pl_module, self.decay)
        else:
            self._average_model = None
        self._swapped = False
        self._current_top1.to(pl_module.device)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for optimizer in trainer.optimizers:
            optimizer.register_step_post_hook(self._note_step)
        steps = trainer.estimated_stepping_batches
        if (remains := self.decay**steps) > 0.1:
            rank_zero_warn(
                f"WeightAveraging(decay={self.decay:g}) spans about {1 / (1 - self.decay):,.0f} steps, and this fit has"
                f" {steps:,}: its first weights are {remains:.0%} of the last average. Lower the decay."
            )

    def _note_step(self, optimizer: Optimizer, *_: Any) -> None:
        self._stepped = True
        # A fused optimizer is called in a step that overflows, too, and knows on the device alone that it did.
        assert self._average_model is not None
        self._average_model.overflow = getattr(optimizer, "found_inf", None)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return self._stepped and super().should_update(step_idx, epoch_idx)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        super().on_train_batch_end(trainer, pl_module, *args)
        self._stepped = False

    def explain(self, trainer: L.Trainer) -> dict[str, str]:
        """What ``fathom explain`` says of it."""
        return {"weight averaging": f"decay {self.decay:g}, which spans about {1 / (1 - self.decay):,.0f} steps"}

    # In the place of the trained weights, and back

    def _swap_models(self, pl_module: L.LightningModule) -> None:
        assert self._average_model is not None
        self._average_model.follow(pl_module)
        super()._swap_models(pl_module)
        self._swapped = not self._swapped

    def _swap_in(self, pl_module: L.LightningModule) -> None:
        if self._average_model is not None and self._average_model.n_averaged > 0 and not self._swapped:
            self._swap_models(pl_module)

    def _swap_back(self, pl_module: L.LightningModule) -> None:
        if self._swapped:
            self._swap_models(pl_module)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._average_model is not None:
            broadcast_buffers(self._average_model.module)
        self._swap_in(pl_module)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        if self._swapped and isinstance(pl_module, ImageClassifier):
            assert self._average_model is not None
            images, targets = batch
            with trainer.precision_plugin.val_step_context():
                logits = self._average_model(images)
            self._current_top1.update(logits.argmax(1) == targets)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._swapped and isinstance(pl_module, ImageClassifier):
            pl_module.log("val/current_top1", self._current_top1.compute())
            self._current_top1.reset()
        self._swap_back(pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._swap_in(pl_module)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        # Before a checkpoint is saved: Lightning calls checkpoint callbacks last.
        self._swap_back(pl_module)

    def on_merge(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The network has merged its pairs of convolutions: the average merges its own."""
        assert self._average_model is not None
        self._average_model.merge_pairs()

    # Checkpoints

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._average_model is None:
            return
        self._average_model.follow(pl_module)
        state = checkpoint["state_dict"]
        # What is neither parameter nor buffer, as the state of metrics, is the module's own.
        other = {name: self._average_model.tensors.get(name, value) for name, value in state.items()}
        averaged, current = (state, other) if self._swapped else (other, state)
        checkpoint["state_dict"] = averaged if self._average_model.n_averaged > 0 else current
        checkpoint["current_model_state"] = current
        checkpoint["averaging_state"] = {"n_averaged": self._average_model.n_averaged}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


class Average(AveragedModel):
    """A copy of a module, in evaluation mode, with the moving average of what the module learns.

    Torch's own synchronises with the device to read its counter, and walks through all tensors, in every update.
    """

    def __init__(self, model: L.LightningModule, decay: float) -> None:
        super().__init__(model, model.device, use_buffers=True)
        self.eval().requires_grad_(False)
        self.n_averaged = self.n_averaged.cpu()
        self.decay = decay
        self.tensors = _tensors(self.module, remove_duplicate=False)
        self._learned: tuple[list[Tensor], list[Tensor]] | None = None
        self.overflow: Tensor | None = None
        """Of the step before the next update: 1 if a fused optimizer left the weights as they were for it, 0 if not."""

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """The first update copies."""
        if self._learned is None:  # by now the module is on its device
            self._learned = self._pairs(model, learned=True)
        averages, values = self._learned
        if self.n_averaged > 0 and self.overflow is not None:
            move_towards(averages, values, (1 - self.decay) * (1 - self.overflow))
        else:  # in place, in one kernel for all tensors
            decay = self.decay if self.n_averaged > 0 else 0.0
            get_ema_multi_avg_fn(decay)(averages, values, self.n_averaged)
        self.n_averaged += 1

    def merge_pairs(self) -> None:
        """Of the network in the module, a :class:`~lit_models.interfaces.DeeplyTrained` one."""
        net: Any = getattr(self.module, "net", self.module)
        net.set_activation_lambda(1.0)  # as that of the trained one, which the average follows when it is needed
        net.merge_pairs()
        self.tensors, self._learned = _tensors(self.module, remove_duplicate=False), None

    @torch.no_grad()
    def follow(self, model: nn.Module) -> None:
        """Copy what is set and not learned."""
        for copy, value in zip(*self._pairs(model, learned=False), strict=True):
            copy.copy_(value)

    def _pairs(self, model: nn.Module, learned: bool) -> tuple[list[Tensor], list[Tensor]]:
        """This copy's tensors, and those of ``model``."""
        names = _learned_names(model)
        values = {name: tensor for name, tensor in _tensors(model).items() if (name in names) is learned}
        return [self.tensors[name] for name in values], list(values.values())


def _tensors(model: nn.Module, remove_duplicate: bool = True) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    named = (
        *model.named_parameters(remove_duplicate=remove_duplicate),
        *model.named_buffers(remove_duplicate=remove_duplicate),
    )
    return {name: tensor.detach() for name, tensor in named}


def _learned_names(model: nn.Module) -> set[str]:
    """Parameters, and running statistics of batch normalisation."""
    statistics = {
        f"{prefix}.{name}"
        for prefix, module in model.named_modules()
        if isinstance(module, BATCH_NORMS)
        for name, buffer in module.named_buffers()
        if buffer.is_floating_point()
    }
    return statistics | {name for name, _ in model.named_parameters()}
