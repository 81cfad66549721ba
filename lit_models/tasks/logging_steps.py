"""The steps whose metrics somebody reads; in the others a call of ``log`` would be for nothing."""

from __future__ import annotations

import lightning as L


def is_logging_step(trainer: L.Trainer) -> bool:
    """Whether metrics of the step that ``on_train_batch_end`` is called for are wanted.

    Loggers want those of every ``log_every_n_steps``-th optimizer step, and of the one after which training stops;
    callbacks, such as one that monitors the training loss, those of the last step of an epoch.
    """
    step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
    batches = trainer.fit_loop.epoch_loop.batch_progress
    is_last = batches.is_last_batch or batches.current.ready == trainer.num_training_batches
    return bool(every and step % every == 0) or is_last or trainer.should_stop or step == trainer.max_steps
