"""Private names of other packages, all that this room uses."""

from __future__ import annotations

import lightning as L

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
