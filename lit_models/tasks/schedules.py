"""The learning rate at every optimizer step, as a factor of its peak."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import lightning as L
from lightning.pytorch.utilities.exceptions import MisconfigurationException

Factor = Callable[[int], float]
"""Optimizer steps taken so far (0 before the first) -> factor for the next one."""

ScheduleName = Literal["cosine", "step", "constant", "polynomial"]
Schedule = ScheduleName | Callable[[int], Factor]
"""A schedule by name, or a function from the number of optimizer steps to the factor of each."""


def cosine(total_steps: int, floor: float = 0.0) -> Factor:
    """½(1 + cos(πt/T)) from 1 at t = 0 towards ``floor`` at t = T (Bag of Tricks, equation 1)."""

    def factor(step: int) -> float:
        progress = min(step / total_steps, 1.0)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))

    return factor


def polynomial(total_steps: int, floor: float = 0.0) -> Factor:
    """(1 − t/T)^0.9 from 1 at t = 0 towards ``floor`` at t = T, the schedule of segmentation (Chen et al. 2017)."""
    return lambda step: floor + (1 - floor) * (1 - min(step / total_steps, 1.0)) ** 0.9


def steps_down(milestones: Sequence[int], gamma: float = 0.1) -> Factor:
    """γ to the number of ``milestones``, in steps, that have been reached."""
    return lambda step: gamma ** sum(step >= milestone for milestone in milestones)


def warmed_up(decay: Factor, warmup_steps: int) -> Factor:
    """i/m in step i = 1 … m, then ``decay`` from its beginning (Bag of Tricks, section 3.1)."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return decay(step - warmup_steps)

    return factor


def steps_per_epoch(trainer: L.Trainer) -> int:
    """Optimizer steps in an epoch of this fit, with gradient accumulation and ``limit_train_batches`` counted in.

    Raises:
        MisconfigurationException: if the training data has no length.
    """
    trainer.fit_loop.setup_data()  # unless the fit has done so
    if math.isinf(trainer.num_training_batches):
        raise MisconfigurationException(
            "epochs of training data without a length can't be counted in steps: set --trainer.limit_train_batches"
        )
    return math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)


def length_in_epochs(trainer: L.Trainer) -> float:
    """Of this fit: infinite without ``max_epochs`` and ``max_steps``."""
    steps = trainer.estimated_stepping_batches
    return steps if math.isinf(steps) else steps / steps_per_epoch(trainer)
