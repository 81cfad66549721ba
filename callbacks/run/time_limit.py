"""``trainer.max_time``, over all the processes of a run."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Timer

from callbacks.run.internals import is_accumulating


class TimeLimit(Timer):
    """Ends the training after a time, at an optimizer step or a validation.

    Lightning's own checks the time before a resumed fit begins. Where it has run out, the fit is then left out as a
    whole: the validation that was still to come, the last checkpoint, and what follows the training.

    Args:
        duration: of all the training, with that of the processes before; days:hours:minutes:seconds, or its parts.
    """

    @property
    def state_key(self) -> str:
        """That of checkpoints in which Lightning's own kept the time."""
        return Timer.__qualname__

    def on_fit_start(self, *_: Any) -> None:
        """Not yet, see above."""

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if not is_accumulating(trainer):
            super().on_train_batch_end(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.on_train_batch_end(trainer)
