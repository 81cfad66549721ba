"""What Lightning's Trainer takes and a run can't do."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder, Timer

from callbacks.run.time_limit import TimeLimit
from experiments.errors import UsageError
from experiments.internals import starts_from_this_process

INSTEAD = {
    Timer: "set trainer.max_time",
    LearningRateFinder: "compare short runs with several values of model.lr",
    BatchSizeFinder: "compare short runs with several values of data.batch_size",
}


def check_trainer(trainer: L.Trainer) -> None:
    """Refuse what would fail in the middle of a run, or leave one that can't be resumed.

    Raises:
        UsageError: naming the setting.
    """
    if starts_from_this_process(trainer):
        raise UsageError(
            "trainer.strategy starts its processes as copies of this one, where a run needs them to begin as it did:"
            " set trainer.strategy to ddp"
        )
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        for kind, instead in INSTEAD.items():
            if isinstance(callback, kind) and not isinstance(callback, TimeLimit):
                raise UsageError(f"trainer.callbacks can't have a {kind.__name__} in a run: {instead}")
