"""Dropout, and whatever else draws from a global generator, as a function of the position in training."""

from __future__ import annotations

import os
import random
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException


class Reseeding(L.Callback):
    """Seeds the generators of torch, NumPy and Python before each micro-batch, by (seed, epoch, batch, rank).

    Nothing then has to be saved for a resumed run to draw what an unbroken one does, and what a validation draws makes
    no difference to the training after it.

    Args:
        seed: the run's by default.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        position = (seed_of_run(self.seed), trainer.current_epoch, batch_idx, trainer.global_rank)
        state = int(np.random.SeedSequence(position).generate_state(1)[0])
        # torch.manual_seed would note its caller for each kind of accelerator that is not there, in half a millisecond.
        torch.default_generator.manual_seed(state)
        if pl_module.device.type != "cpu":
            torch.get_device_module(pl_module.device.type).manual_seed(state)
        np.random.seed(state)
        random.seed(state)


def seed_of_run(seed: int | None) -> int:
    """``seed``, or the seed of the run if it is ``None``.

    Raises:
        MisconfigurationException: for a negative one.
    """
    if seed is not None and seed < 0:
        raise MisconfigurationException(f"the seed of a callback is {seed}; give 0 or more")
    return int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed
