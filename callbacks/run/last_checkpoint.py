"""The checkpoint a run is resumed from, bit for bit."""

from __future__ import annotations

import math
import time
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
import torch.distributed as dist
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.run.epoch_means import epoch_means, restore_epoch_means
from callbacks.run.internals import count_steps_for_loggers, is_accumulating, leave_signals_alone
from callbacks.run.ranks import Consensus, broadcast_buffers
from callbacks.run.signals import EXIT_CODE, NotedSignals, leave_early, print_to_stderr

Moment = Literal["batch", "validation", "end"]
"""Where training goes on: with a micro-batch, with a validation, or not at all."""

_NOTHING, _SAVE, _LEAVE = range(3)


class LastCheckpoint(L.Callback):
    """Writes ``checkpoints/last.ckpt`` at points from which a resumed run is bit-identical to an uninterrupted one.

    These are before the first micro-batch of an optimizer step, where no gradient is accumulated, and before a
    validation; at both, all rows of metrics are written, and no averaged weights are swapped in. A checkpoint is
    written before each validation, at the end of an epoch without one, at the end of the fit, and as often between as
    the arguments say. The one before it is kept as ``previous.ckpt``. Beside what Lightning saves it holds the means of
    the epoch so far, and how far the loggers that have a ``state_dict`` had come.

    SIGTERM, SIGUSR1 (SLURM's warning of a preemption), SIGHUP (a closed terminal) and Ctrl-C write one at the next such
    moment, in a validation at once, and leave with exit code 75; whichever device gets the signal, all leave, one step
    later than a single device would. If the data workers then send no batch for 20 seconds, it leaves with the
    checkpoint it has. When a repeated signal ends the process at once is said in :mod:`callbacks.run.signals`.

    It has to be the first of the callbacks, to save before the others prepare the next step. At the start of a
    validation all ranks get the buffers of the first one, which are those that are saved.

    Args:
        every_n_steps: optimizer steps between checkpoints.
        every_minutes: minutes between them, on the clock of the first device.

    Raises:
        MisconfigurationException: for a number that is not positive.
    """

    def __init__(self, every_n_steps: int | None = None, every_minutes: float | None = None) -> None:
        for name, value in (("every_n_steps", every_n_steps), ("every_minutes", every_minutes)):
            if value is not None and value <= 0:
                raise MisconfigurationException(f"LastCheckpoint needs a positive {name}, not {value}")
        self.every_n_steps = every_n_steps
        self.every_minutes = every_minutes
        self._signals = NotedSignals()
        self._moment: Moment | None = None
        self._saved_step = 0
        self._saved_time = 0.0
        self._restored: dict[str, Any] = {}
        self._agreed = Consensus(1)
        self._common_batches, self._validated = 0, 0
        self._val_check_batch: float | None = None
        """That of the Trainer, until the validation that a resumed run begins with."""
        self._repeats_end, self._stopped_after = False, math.inf

    def repeat_end(self, stopped_after: int | None) -> None:
        """Train again from the checkpoint before the end to the end, and save nothing but the end.

        A process that is killed in what follows the training, such as the merge, leaves ``last.ckpt``, written at the
        end, and ``previous.ckpt``. Both stay until the end is reached again, however often this is repeated.

        Args:
            stopped_after: micro-batches after which the training was stopped before its limits, by whatever it was.
        """
        self._repeats_end = True
        self._stopped_after = math.inf if stopped_after is None else stopped_after

    # Saving

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._restored:
            count_steps_for_loggers(trainer)
            self._restored = {}
        if batch_idx % trainer.accumulate_grad_batches:
            return
        todo = self._agreed(self._wish(trainer))
        if (todo != _NOTHING or self._is_due(trainer, batch_idx)) and self._saved_step != trainer.global_step:
            self._save(trainer, "batch")
        if todo == _LEAVE:
            self._leave(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        if self._val_check_batch is not None:
            trainer.val_check_batch, self._val_check_batch = self._val_check_batch, None
        broadcast_buffers(pl_module)
        batches = min(sum(trainer.num_val_batches), 1 << 62)  # it is inf for a loader without length
        self._validated, self._common_batches = 0, self._least(int(batches))
        if not is_accumulating(trainer) and not self._restored:
            self._save(trainer, "validation")

    def on_validation_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._validated += 1
        if self._validated > self._common_batches:
            return  # another device has no such batch, and can't be asked
        if self._agreed(_LEAVE if self._signals.received else _NOTHING) == _LEAVE:
            self._leave(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(trainer, "end")
        self._signals.stop()

    # Stopping where the training was stopped before: a batch that an epoch ends with leaves that to the epoch, or a
    # validation would be added to it.

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._stop_where_it_ended(trainer)

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        self._stop_where_it_ended(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self._stop_where_it_ended(trainer)

    def _stop_where_it_ended(self, trainer: L.Trainer) -> None:
        batches: Any = trainer.fit_loop.epoch_loop.batch_progress.total
        if batches.processed >= self._stopped_after:
            trainer.should_stop = True

    def _is_due(self, trainer: L.Trainer, batch_idx: int) -> bool:
        """What all devices know by themselves."""
        step = trainer.global_step
        return step > 0 and (batch_idx == 0 or (self.every_n_steps is not None and step % self.every_n_steps == 0))

    def _wish(self, trainer: L.Trainer) -> int:
        """What this device alone knows."""
        if self._signals.received:
            return _LEAVE
        now = time.monotonic()
        if not self.every_minutes or not trainer.is_global_zero or now - self._saved_time <= 60 * self.every_minutes:
            return _NOTHING
        self._saved_time = now  # or it would wish for another until this one is written
        return _SAVE

    def _save(self, trainer: L.Trainer, moment: Moment) -> None:
        if trainer.fast_dev_run or (self._repeats_end and moment != "end"):  # type: ignore[attr-defined]
            return
        folder = _folder(trainer)
        self._moment = moment
        try:
            trainer.save_checkpoint(folder / ".next.ckpt", weights_only=False)
        finally:
            self._moment = None
        if trainer.is_global_zero:
            if (folder / "last.ckpt").is_file() and not self._repeats_end:
                (folder / "last.ckpt").replace(folder / "previous.ckpt")
            (folder / ".next.ckpt").replace(folder / "last.ckpt")
        self._saved_step, self._saved_time = trainer.global_step, time.monotonic()

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._moment is None:
            return  # another's, such as the best one, which nobody resumes from
        mark_loops_complete(checkpoint["loops"]["fit_loop"], self._moment)
        means = epoch_means(trainer, pl_module)
        checkpoint["run"] = {
            "moment": self._moment,
            "stopped": trainer.should_stop,
            "first": not (_folder(trainer) / ("previous.ckpt" if self._repeats_end else "last.ckpt")).exists(),
            "epoch_means": self._gathered(means) if trainer.world_size > 1 else [means],
            "loggers": [_state(logger) for logger in trainer.loggers] if trainer.is_global_zero else [],
        }

    # Resuming

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self._restored = checkpoint.get("run", {})

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._signals.listen(partial(self._hurry, trainer))  # after Lightning, which has handlers of its own
        self._saved_step, self._saved_time = trainer.global_step, time.monotonic()
        self._agreed = Consensus(trainer.world_size)
        leave_signals_alone(trainer)
        if not self._restored:
            return
        # Only there to have Lightning begin the validation: see mark_loops_complete.
        trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset_on_restart()
        if self._restored["moment"] == "validation":
            # It is due, also where a stop in the middle of an epoch made it so, of which nothing is left.
            self._val_check_batch, trainer.val_check_batch = trainer.val_check_batch, 1
        means = self._restored["epoch_means"]
        if len(means) == trainer.world_size:  # else the number of devices has changed, and the means begin anew
            restore_epoch_means(trainer, pl_module, means[trainer.global_rank])
        for logger, state in zip(trainer.loggers, self._restored["loggers"], strict=False):
            if state and trainer.is_global_zero:
                logger.load_state_dict(state)  # type: ignore[attr-defined]

    # Leaving

    def _hurry(self, trainer: L.Trainer) -> None:
        """A data worker that is stopped must not keep the run until the scheduler kills it."""
        if hasattr(data := trainer.datamodule, "hurry"):  # type: ignore[attr-defined]
            data.hurry(partial(self._leave, trainer))

    def _leave(self, trainer: L.Trainer) -> None:
        if trainer.is_global_zero:
            name = self._signals.received.name if self._signals.received else "a signal to another device"
            unsaved = "before its first checkpoint" if trainer.global_step else "before the first step"
            saved = f"saved at step {self._saved_step}" if self._saved_step else unsaved
            print_to_stderr(f"Left after {name}, {saved}; to go on: fathom resume {trainer.default_root_dir}")
        # A process that Lightning has started must not end in failure: it would kill the first one for it.
        started_by_lightning = not trainer.is_global_zero and isinstance(
            getattr(trainer.strategy, "cluster_environment", None), LightningEnvironment
        )
        leave_early(0 if started_by_lightning else EXIT_CODE)

    def on_exception(self, *_: Any) -> None:
        self._signals.stop()

    # Several devices. On the CPU, so that none of it synchronises with a GPU.

    def _least(self, number: int) -> int:
        if self._agreed.group is None:
            return number
        least = torch.tensor(number)
        dist.all_reduce(least, dist.ReduceOp.MIN, group=self._agreed.group)
        return int(least)

    def _gathered(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, move_data_to_device(value, torch.device("cpu")), group=self._agreed.group)
        return values


def mark_loops_complete(loops: dict[str, Any], moment: Moment) -> None:
    """Set the loops' progress so that Lightning resumes at ``moment``.

    What has started counts as completed, except for the pending validation: Lightning would skip a batch that is under
    way, and resumes a validation only if it has started.
    """
    batches = loops["epoch_loop.batch_progress"]
    if moment == "batch":
        for counts in (batches["total"], batches["current"]):
            counts["ready"] = counts["completed"]
        batches["is_last_batch"] = False
    if moment == "validation":
        batches = loops["epoch_loop.val_loop.batch_progress"]
        for counts in (batches["total"], batches["current"]):
            counts["ready"] = counts["started"] = counts["completed"] + 1


def _folder(trainer: L.Trainer) -> Path:
    return Path(trainer.default_root_dir) / "checkpoints"


def _state(logger: Any) -> dict[str, Any]:
    return logger.state_dict() if hasattr(logger, "state_dict") else {}
