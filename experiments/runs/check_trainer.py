"""What Lightning's Trainer takes and a run can't do: it would fail in the middle, or could not be resumed."""

from __future__ import annotations

from collections.abc import Iterable

import lightning as L
from lightning.pytorch.callbacks import BatchSizeFinder, GradientAccumulationScheduler, LearningRateFinder, Timer

from experiments.errors import UsageError
from experiments.internals import starts_from_this_process

INSTEAD: dict[type[L.Callback], str] = {
    Timer: "set trainer.max_time",
    GradientAccumulationScheduler: "set trainer.accumulate_grad_batches",
    LearningRateFinder: "compare short runs with several values of model.lr",
    BatchSizeFinder: "compare short runs with several values of data.batch_size",
}


def check_callbacks(classes: Iterable[object]) -> None:
    """Refuse some of Lightning's callbacks.

    Raises:
        UsageError: naming the callback, and what is there for its purpose.
    """
    for chosen in classes:
        for refused, instead in INSTEAD.items():
            if isinstance(chosen, type) and issubclass(chosen, refused):
                raise UsageError(f"no run can be resumed with the callback {chosen.__name__}: {instead}")


def check_strategy(trainer: L.Trainer) -> None:
    """Refuse a strategy that copies this process.

    Raises:
        UsageError: naming another one.
    """
    if starts_from_this_process(trainer):
        raise UsageError(
            "trainer.strategy starts its processes as copies of this one, in which the run has begun already: set"
            " trainer.strategy to ddp"
        )
