"""Gradual warm-up of the learning rate (Bag of Tricks, section 3.1)."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_models.tasks.schedules import steps_per_epoch


class LearningRateWarmup(L.Callback):
    """η·i/m in optimizer steps i = 1 … m; the schedule of the module then has the rest of the fit.

    The callback only tells the module m, before the optimizer is configured: the learning rate is a function of the
    step in one scheduler, and therefore exact after a resume.

    Args:
        epochs: length of the warm-up, fractions allowed.
        steps: its length in optimizer steps instead.

    Raises:
        MisconfigurationException: where not exactly one of the two is given, or the module has no ``warmup_steps``.
    """

    def __init__(self, epochs: float | None = None, steps: int | None = None) -> None:
        if (epochs is None) == (steps is None):
            raise MisconfigurationException("LearningRateWarmup takes either epochs or steps")
        if min(epochs or 0, steps or 0) < 0:
            raise MisconfigurationException("LearningRateWarmup can't have a negative length")
        self.epochs = epochs
        self.steps = steps

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if not hasattr(pl_module, "warmup_steps"):
            raise MisconfigurationException(
                f"LearningRateWarmup hands its length to the module's warmup_steps, which {type(pl_module).__name__}"
                " does not have: remove the callback"
            )
        steps = self.steps if self.epochs is None else round(self.epochs * steps_per_epoch(trainer))
        pl_module.warmup_steps = steps  # type: ignore[assignment]
