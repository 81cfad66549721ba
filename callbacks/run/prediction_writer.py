"""Predictions as a table."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_info


def as_text(name: str) -> str:
    """``name`` as a cell that no spreadsheet takes for a formula.

    One that begins with ``=``, ``+``, ``-``, ``@``, a tab or a line end gets an apostrophe before it, and so does one
    that begins with an apostrophe: the name is the cell without its first apostrophe, if it begins with one.
    """
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "'")) else name


class PredictionWriter(BasePredictionWriter):
    """Writes ``predictions.csv`` into the run directory: image, predicted class, its probability.

    The image is its position in the data set. A name that a spreadsheet would compute as a formula stands after an
    apostrophe, see :func:`as_text`.

    Raises:
        MisconfigurationException: in ``setup``, on several devices, each of which sees only its share.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="batch")
        self._rows = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if trainer.world_size > 1:
            raise MisconfigurationException("predict writes one table, on one device: add --trainer.devices 1")

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Any,
        batch_indices: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        names = trainer.datamodule.class_names  # type: ignore[attr-defined]
        path = self._path(trainer)
        path.parent.mkdir(parents=True, exist_ok=True)
        probabilities, classes = prediction.max(1)
        with open(path, "a", newline="") as file:
            writer = csv.writer(file)
            if self._rows == 0:
                writer.writerow(["image", "class", "probability"])
            for probability, index in zip(probabilities.tolist(), classes.tolist(), strict=True):
                writer.writerow([self._rows, as_text(names[index]), f"{probability:.4f}"])
                self._rows += 1

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        rank_zero_info(f"{self._rows} predictions in {self._path(trainer)}")

    @staticmethod
    def _path(trainer: L.Trainer) -> Path:
        return Path(trainer.default_root_dir) / "predictions.csv"
