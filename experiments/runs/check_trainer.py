"""What Lightning's Trainer takes and a run can't do: it would fail in the middle, or could not be resumed."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

import lightning as L
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Checkpoint,
    GradientAccumulationScheduler,
    LearningRateFinder,
    LearningRateMonitor,
    Timer,
)

from experiments.errors import UsageError
from experiments.internals import starts_from_this_process

INSTEAD: dict[type[L.Callback], str] = {
    Timer: "set trainer.max_time",
    GradientAccumulationScheduler: "set trainer.accumulate_grad_batches",
    LearningRateFinder: "compare short runs with several values of model.lr",
    BatchSizeFinder: "compare short runs with several values of data.batch_size",
}
SAY_WHAT_THEY_LOG = ("callbacks", "experiments", "lightning", "lit_models")
"""Packages of the parts of a fit."""


def check_callbacks(classes: Iterable[object]) -> None:
    """Refuse some of Lightning's callbacks.

    Raises:
        UsageError: naming the callback, and what is there for its purpose.
    """
    for chosen in classes:
        for refused, instead in INSTEAD.items():
            if isinstance(chosen, type) and issubclass(chosen, refused):
                raise UsageError(f"no run can be resumed with the callback {chosen.__name__}: {instead}")


def check_monitors(module: L.LightningModule, callbacks: list[L.Callback]) -> None:
    """Refuse a callback that watches a metric that nothing logs; Lightning notices at the first validation.

    A part of a fit says in ``logs`` what it logs, in patterns. What a part that is not Fathom's logs, nobody knows, and
    then nothing is refused.

    Raises:
        UsageError: naming the callback, the metric, and those that are logged.
    """
    parts = [module, *callbacks]
    if not all(type(part).__module__.partition(".")[0] in SAY_WHAT_THEY_LOG for part in parts):
        return
    if any(isinstance(callback, LearningRateMonitor) for callback in callbacks):
        return
    logged = sorted({pattern for part in parts for pattern in getattr(part, "logs", ())})
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        if monitor is None or not getattr(callback, "strict", True):
            continue
        counted = ("epoch", "step") if isinstance(callback, Checkpoint) else ()
        if not any(fnmatchcase(monitor, pattern) for pattern in (*logged, *counted)):
            raise UsageError(
                f"{type(callback).__name__} has the monitor {monitor!r}, which this run does not log; it logs"
                f" {', '.join(logged)}"
            )


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
