"""Private names of other packages, all that this room uses.

What is logged in an epoch, and how far its loops have come, Lightning neither saves whole nor lets one set. Torch has
its kernels for many tensors at once under private names alone.
"""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torchmetrics import Metric

SEEN_WITH = {"lightning": "2.6.6", "torch": "2.14.1", "torchmetrics": "1.9.0"}
OVERRIDDEN = {"WeightAveraging": {"_average_model", "_swap_models"}}
"""Classes of this room, and what they share with a base class of another package."""

SUMS = ("value", "cumulated_batch_size", "_forward_cache")
"""Attributes of a logged result that hold what it has summed up."""


def logged_results(trainer: L.Trainer) -> Any:
    """What ``self.log`` has collected in the epoch of training under way, by name of the hook and of the metric."""
    return trainer.fit_loop.epoch_loop._results


def go_on_logging(trainer: L.Trainer, callback_metrics: dict[str, Any]) -> None:
    """Have the next batch add to what is logged; as the first of an epoch it would start all sums from zero."""
    if logged_results(trainer):
        trainer._logger_connector._first_loop_iter = False
    trainer._logger_connector._callback_metrics.update(callback_metrics)


def set_update_count(metric: Metric, updates: int) -> None:
    """Have ``metric`` compute its value anew, from a state of ``updates`` updates."""
    metric._update_count, metric._computed = updates, None


def is_accumulating(trainer: L.Trainer) -> bool:
    """Whether the batch under way leaves its gradient for the next one."""
    return trainer.fit_loop._should_accumulate()


def count_steps_for_loggers(trainer: L.Trainer) -> None:
    """Set the step under which metrics are logged to the optimizer step; after a resume it may be one off."""
    trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step


def set_run_directory(trainer: L.Trainer, directory: str) -> None:
    """Set ``trainer.default_root_dir``, which Lightning takes only when the Trainer is made."""
    trainer._default_root_dir = directory  # type: ignore[attr-defined]


def norms(tensors: list[Tensor]) -> Tensor:
    """The 2-norm of each of some tensors, in one kernel."""
    return torch.stack(torch._foreach_norm(tensors))


def move_towards(tensors: list[Tensor], targets: list[Tensor], share: Tensor) -> None:
    """Each tensor to its target by a share of the way, which need not be known on the host; in place."""
    way = torch._foreach_sub(targets, tensors)
    torch._foreach_mul_(way, share)
    torch._foreach_add_(tensors, way)


def leave_signals_alone(trainer: L.Trainer) -> None:
    """Let Lightning not ask the first device in each step whether it got SIGTERM, which waits for all devices."""
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def reduce_gradients_anew(trainer: L.Trainer) -> None:
    """Have ``DistributedDataParallel`` reduce the gradients of the parameters that the module has by now."""
    strategy: Any = trainer.strategy
    if isinstance(strategy, DDPStrategy):
        wrapped: Any = strategy.model
        wrapped._remove_autograd_hooks()
        strategy.model = strategy.lightning_module
        strategy.configure_ddp()
