"""Deep training: activations annealed to the identity (VanillaNet, section 3.1)."""

from __future__ import annotations

import math
from typing import Any, Literal

import lightning as L
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_models.interfaces import AnnealedActivations
from lit_models.schedules import steps_per_epoch


def annealing_lambda(epoch: float, epochs: float, shape: Literal["linear", "cosine"] = "linear") -> float:
    """λ = e/E, or ½(1 − cos(πe/E)); 1 from E on."""
    progress = min(epoch / epochs, 1.0)
    return progress if shape == "linear" else 0.5 * (1 - math.cos(math.pi * progress))


class ActivationAnnealing(L.Callback):
    """Moves λ of a network of :class:`~lit_models.interfaces.AnnealedActivations` from 0 to 1 and logs it.

    λ depends on the position in training alone, so a resumed run goes on where it was.

    Args:
        epochs: E, after which λ is 1. It must lie before the end of the fit, as only λ = 1 can be merged.
        shape: of λ over the epochs.
        per: move λ at the beginning of each epoch (the paper) or in every optimizer step.

    Raises:
        MisconfigurationException: in ``setup``, for a network without annealed activations, or where λ would not
            reach 1.
    """

    def __init__(
        self, epochs: float, shape: Literal["linear", "cosine"] = "linear", per: Literal["epoch", "step"] = "epoch"
    ) -> None:
        if epochs <= 0:
            raise MisconfigurationException(f"ActivationAnnealing needs a positive number of epochs, not {epochs}")
        self.epochs = epochs
        self.shape: Literal["linear", "cosine"] = shape
        self.per = per
        self._current: float | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._net = _annealed(pl_module)
        max_epochs = trainer.max_epochs
        # A fast_dev_run ends after a step on purpose.
        if max_epochs is None or max_epochs < 0 or getattr(trainer, "fast_dev_run", False):
            return
        reaches_one = self.epochs <= max_epochs - 1 if self.per == "epoch" else self.epochs < max_epochs
        if not reaches_one:
            raise MisconfigurationException(
                f"ActivationAnnealing(epochs={self.epochs:g}, per={self.per!r}) doesn't reach λ = 1 in the"
                f" {max_epochs} epochs of this fit (its last epoch must run at λ = 1): lower epochs to"
                f" {max_epochs - 1} or less, or raise --trainer.max_epochs"
            )

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        # Not at the start of the epoch: that hook is skipped after a resume.
        value = annealing_lambda(self._position(trainer), self.epochs, self.shape)
        if value != self._current:
            self._net.set_activation_lambda(value)
            self._current = value
        pl_module.log("activation_lambda", self._net.activation_lambda)

    def _position(self, trainer: L.Trainer) -> float:
        """Epochs trained so far, whole or with their fraction."""
        if self.per == "epoch":
            return trainer.current_epoch
        return trainer.global_step / steps_per_epoch(trainer)


def _annealed(pl_module: L.LightningModule) -> AnnealedActivations:
    net = getattr(pl_module, "net", pl_module)
    if not isinstance(net, AnnealedActivations):
        raise MisconfigurationException(
            f"ActivationAnnealing needs a network with annealed activations (activation_lambda and"
            f" set_activation_lambda), such as VanillaNet, and {type(net).__name__} has none: remove the callback or"
            " change the network"
        )
    return net
