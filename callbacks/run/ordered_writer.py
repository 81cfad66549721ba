"""What writes predictions in the order of their images."""

from __future__ import annotations

from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities.exceptions import MisconfigurationException


class OrderedWriter(BasePredictionWriter):
    """Writes into the run directory after each batch, on one device; ``setup`` begins from the first image.

    Raises:
        MisconfigurationException: in ``setup``, on several devices, each of which sees only its share.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="batch")

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if trainer.world_size > 1:
            raise MisconfigurationException("predict writes in order, on one device: add --trainer.devices 1")
        self.folder = Path(trainer.default_root_dir)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.count = 0
