"""Private names of other packages, all that this room uses; seen with the releases in ``SEEN_WITH``."""

from __future__ import annotations

import lightning as L

SEEN_WITH = {"lightning": "2.6.6"}


def attach_data(trainer: L.Trainer, model: L.LightningModule, data: L.LightningDataModule) -> None:
    """Let the loops of ``trainer`` take their batches from ``data``, as ``trainer.fit`` does."""
    trainer._data_connector.attach_data(model, datamodule=data)
