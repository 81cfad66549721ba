"""Deep training: activations annealed to the identity (VanillaNet, section 3.1)."""

from __future__ import annotations

import math
from typing import Any, Literal

import lightning as L
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from callbacks.requirements import network_with
from lit_models.errors import check_choice
from lit_models.interfaces import AnnealedActivations
from lit_models.tasks.logging_steps import is_logging_step
from lit_models.tasks.schedules import length_in_epochs, steps_per_epoch


def annealing_lambda(epoch: float, epochs: float, shape: Literal["linear", "cosine"] = "linear") -> float:
    """λ = e/E, or ½(1 − cos(πe/E)); 1 from E on."""
    progress = min(epoch / epochs, 1.0)
    return progress if shape == "linear" else 0.5 * (1 - math.cos(math.pi * progress))


def annealing_epochs(epochs: float | None, per: Literal["epoch", "step"], end: float) -> float:
    """E of a fit of ``end`` epochs, of which the last may be cut short; by default a third of it.

    Raises:
        MisconfigurationException: where λ would not be 1 in the last epoch, or step.
    """
    if per == "epoch" and end < math.inf:
        end = math.ceil(end)
    if epochs is None:
        if end == math.inf:
            raise MisconfigurationException(
                "ActivationAnnealing takes a third of the fit, which has no end: set --trainer.max_epochs, or the"
                " epochs of the callback"
            )
        if end < 2 and per == "epoch":
            rank_zero_warn("A fit of one epoch is too short to anneal: its activations stay as they are (λ = 0).")
        return max(end // 3, 1) if per == "epoch" else end / 3
    if epochs > end - 1 if per == "epoch" else epochs >= end:
        raise MisconfigurationException(
            f"ActivationAnnealing(epochs={epochs:g}, per={per!r}) doesn't reach λ = 1 in a fit of {end:g} epochs:"
            f" lower its epochs to {end - 1:g} or less, or raise --trainer.max_epochs or"
            " --trainer.max_steps"
        )
    return epochs


class ActivationAnnealing(L.Callback):
    """Moves λ of a network of :class:`~lit_models.interfaces.AnnealedActivations` from 0 to 1 and logs it.

    λ depends on the position in training alone, so a resumed run goes on where it was.

    Args:
        epochs: E, after which λ is 1. It must lie before the end of the fit, as only λ = 1 can be merged. By default
            a third of the fit, like the 100 of 300 epochs of the paper.
        shape: of λ over the epochs.
        per: move λ at the beginning of each epoch (the paper) or in every optimizer step.

    Raises:
        MisconfigurationException: in ``setup``, for a network without annealed activations, or where λ would not
            reach 1.
    """

    logs = ("activation_lambda",)

    def __init__(
        self,
        epochs: float | None = None,
        shape: Literal["linear", "cosine"] = "linear",
        per: Literal["epoch", "step"] = "epoch",
    ) -> None:
        if epochs is not None and epochs <= 0:
            raise MisconfigurationException(f"ActivationAnnealing needs a positive number of epochs, not {epochs}")
        check_choice("shape", shape, Literal["linear", "cosine"], MisconfigurationException)
        check_choice("per", per, Literal["epoch", "step"], MisconfigurationException)
        self.epochs = epochs
        self.shape: Literal["linear", "cosine"] = shape
        self.per = per
        self._current: float | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._net = network_with(AnnealedActivations, pl_module, self)
        self._current = None
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._until = self.epochs or 1.0  # it ends after a step, on purpose
        else:
            self._until = annealing_epochs(self.epochs, self.per, _end(trainer))

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        # Not at the start of the epoch: that hook is skipped after a resume.
        value = annealing_lambda(self._position(trainer), self._until, self.shape)
        if value != self._current:
            self._net.set_activation_lambda(value)
            self._current = value

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if is_logging_step(trainer):
            pl_module.log("activation_lambda", self._net.activation_lambda)

    def explain(self, trainer: L.Trainer) -> dict[str, str]:
        """What ``fathom explain`` says of it."""
        epochs = annealing_epochs(self.epochs, self.per, _end(trainer))
        return {"annealing": f"λ from 0 to 1 in {epochs:g} epochs, {self.shape}, by {self.per}"}

    def _position(self, trainer: L.Trainer) -> float:
        """Epochs trained so far, whole or with their fraction."""
        if self.per == "epoch":
            return trainer.current_epoch
        return trainer.global_step / steps_per_epoch(trainer)


def _end(trainer: L.Trainer) -> float:
    """Epochs of the fit, with their fraction; infinite if nothing ends it."""
    if (trainer.max_epochs or -1) >= 0 and trainer.max_steps < 0:
        return trainer.max_epochs  # type: ignore[return-value]
    return length_in_epochs(trainer)
