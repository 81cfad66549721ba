"""Steps of training, timed in turns."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any, Literal, TypeVar

import lightning as L
import torch

T = TypeVar("T")
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
PRECISIONS: tuple[Precision, ...] = ("32-true", "16-mixed")
"""What benchmarks of training are run in: float32, and the default of runs."""


def now(device: torch.device) -> float:
    """Seconds on a clock, when ``device`` has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def clock_of(device: torch.device, threads: int) -> Callable[[], float]:
    """Seconds of the process itself with one thread on a CPU, which others disturb little; otherwise :func:`now`."""
    return time.process_time if device.type == "cpu" and threads == 1 else partial(now, device)


class StepTimer(L.Callback):
    """Seconds from the start of a step to the start of the next, all that the Trainer does between included."""

    def __init__(self, clock: Callable[[torch.device], float] = now) -> None:
        self.seconds: list[float] = []
        self._clock = clock
        self._last: float | None = None

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        time_now = self._clock(pl_module.device)
        if self._last is not None:
            self.seconds.append(time_now - self._last)
        self._last = time_now


def in_turn(variants: Sequence[T], number: int) -> list[T]:
    """The variants in the order of a round: nobody is always first."""
    first = number % len(variants)
    return [*variants[first:], *variants[:first]]


def ratio_and_spread(seconds: Sequence[float], reference: Sequence[float]) -> tuple[str, str]:
    """The median of the rounds' ratios, and the least and the greatest."""
    ratios = [ours / theirs for ours, theirs in zip(seconds, reference, strict=True)]
    return f"{median(ratios):.3f}", f"{min(ratios):.3f}–{max(ratios):.3f}"


def silence() -> None:
    """Lightning introduces itself in each of many short fits."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
