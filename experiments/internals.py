"""Private names of other packages, all that this room uses."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

SEEN_WITH = {"lightning": "2.6.6"}
OVERRIDDEN = {
    "FathomCLI": {"_get", "_parse_ckpt_path"},
    "_Writer": {"_check_log_dir_exists", "_record_new_keys"},
    "DispensableWandbLogger": {"_experiment", "_offline"},
}
"""Classes of this room, and what they share with a base class of another package."""


def attach_data(trainer: L.Trainer, model: L.LightningModule, data: L.LightningDataModule) -> None:
    """Let the loops of ``trainer`` take their batches from ``data``, as ``trainer.fit`` does."""
    trainer._data_connector.attach_data(model, datamodule=data)


def starts_from_this_process(trainer: L.Trainer) -> bool:
    """Whether the strategy of ``trainer`` forks or spawns its processes, and runs no command anew."""
    return isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)
