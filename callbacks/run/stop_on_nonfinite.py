"""A diverged run ends at the step it diverged in, with the batch that did it."""

from __future__ import annotations

import math
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.nn.utils import get_total_norm

from lit_models.checkpoints import write_atomically


class NonFiniteError(FloatingPointError):
    """A loss, a gradient or the weights are NaN or infinite. The message names step, loss and learning rate."""


class StopOnNonFinite(L.Callback):
    """Stops training at a loss or gradient that is NaN or infinite, and saves the batch for a notebook.

    ``nonfinite.pt`` in the run directory has ``batch`` as the network got it, ``step``, ``epoch``, ``batch_idx``,
    ``loss``, ``gradient_norm``, ``last_finite_loss`` and ``lr``; ``torch.load(path, weights_only=True)`` reads it. Each
    rank writes its own.

    No step synchronises with the device. Loss and gradient norm are copied to the host in the background, and the batch
    is kept until they have arrived, a step or two later. Before a checkpoint, and at the end of an epoch, they are
    waited for: nothing that follows a non-finite step is saved, and the checkpoints before it stay as they are. The
    progress bar shows the last loss that has arrived.

    With a gradient scaler (``16-mixed`` on a GPU) gradients overflow as a matter of course, and the scaler skips those
    steps: then the loss alone counts.

    Raises:
        NonFiniteError: naming step, last finite loss and learning rate.
    """

    MOST_IN_FLIGHT = 8
    """Batches kept at most; a host further ahead synchronises with the device."""

    def __init__(self) -> None:
        self._in_flight: deque[_Step] = deque()
        self._last_finite_loss: float | None = None
        self._error: NonFiniteError | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._in_flight.clear()
        self._last_finite_loss = self._error = None
        self._scaled = getattr(trainer.precision_plugin, "scaler", None) is not None

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self._gradient_norm: Tensor | None = None
        self._step = trainer.global_step
        self._lr = max((group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups), default=0)

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._scaled:
            self._gradient_norm = get_total_norm(
                parameter.grad
                for optimizer in trainer.optimizers
                for group in optimizer.param_groups
                for parameter in group["params"]
                if parameter.grad is not None
            )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if not isinstance(loss, Tensor):  # a step that was left out, or one optimized by hand
            return
        norm = loss.new_zeros(()) if self._gradient_norm is None else self._gradient_norm.to(loss)
        # Lightning has divided the loss by the batches of an accumulation.
        numbers = torch.stack([loss * trainer.accumulate_grad_batches, norm]).to("cpu", non_blocking=True)
        arrived = None
        if loss.is_cuda:
            arrived = torch.cuda.Event()
            arrived.record()
        self._in_flight.append(_Step(self._step, trainer.current_epoch, batch_idx, self._lr, batch, numbers, arrived))
        self._check_arrived(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._check_arrived(trainer, wait=True)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._check_arrived(trainer, wait=True)
        if not get_total_norm(pl_module.parameters()).isfinite():
            raise NonFiniteError(
                f"the weights after {trainer.global_step} steps are not finite, though the loss before was"
                f" {self._last_finite_loss}: no checkpoint is written, those before it are untouched; lower the"
                " learning rate, or raise the epsilon of the optimizer"
            )

    def _check_arrived(self, trainer: L.Trainer, wait: bool = False) -> None:
        """Check the numbers that have reached the host; with ``wait``, all of them."""
        if self._error is not None:  # someone who saves on exceptions
            raise self._error
        while self._in_flight:
            step = self._in_flight[0]
            if step.arrived is not None:
                if wait or len(self._in_flight) > self.MOST_IN_FLIGHT:
                    step.arrived.synchronize()
                elif not step.arrived.query():
                    return
            self._in_flight.popleft()
            loss, gradient_norm = step.numbers.tolist()
            if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
                self._in_flight.clear()
                self._error = self._stop(trainer, step, loss, gradient_norm)
                raise self._error
            self._last_finite_loss = loss
            if trainer.progress_bar_callback is not None:
                trainer.progress_bar_metrics["loss"] = loss  # train/loss leaves auxiliary heads out

    def _stop(self, trainer: L.Trainer, step: _Step, loss: float, gradient_norm: float) -> NonFiniteError:
        """Save the batch, and return the error that says what happened."""
        rank = f"-rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = Path(trainer.default_root_dir) / f"nonfinite{rank}.pt"
        record = {
            **{name: getattr(step, name) for name in ("step", "epoch", "batch_idx")},
            "loss": loss,
            "gradient_norm": None if self._scaled else gradient_norm,
            "last_finite_loss": self._last_finite_loss,
            "lr": float(step.lr),
            "batch": apply_to_collection(step.batch, Tensor, lambda tensor: tensor.detach().cpu().contiguous()),
        }
        try:
            write_atomically(record, path)
            where = f"the batch is in {path}"
        except OSError as error:
            where = f"the batch could not be saved ({error})"
        if math.isfinite(loss):
            what = f"the gradient of step {step.step} has a norm of {gradient_norm}, though its loss is {loss:.4g}"
        else:
            what = f"the loss of step {step.step} is {loss}"
        last = self._last_finite_loss
        before = "it is the first" if last is None else f"{last:.4g} was the last finite one"
        return NonFiniteError(
            f"{what} ({before}), in epoch {step.epoch} at a learning rate of {float(step.lr):.3g}: lower it, warm it up"
            f" or clip the gradient; {where}, and the checkpoints before it are untouched"
        )


class _Step(NamedTuple):
    step: int
    epoch: int
    batch_idx: int
    lr: float | Tensor
    batch: Any
    numbers: Tensor
    """Loss and gradient norm, on the host once they have ``arrived``."""
    arrived: torch.cuda.Event | None
