"""Predictions as a table."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from callbacks.run.ordered_writer import OrderedWriter


def as_text(name: str) -> str:
    """``name`` as a cell that no spreadsheet takes for a formula.

    One that begins with ``=``, ``+``, ``-``, ``@``, a tab or a line end gets an apostrophe before it, and so does one
    that begins with an apostrophe: the name is the cell without its first apostrophe, if it begins with one.
    """
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "'")) else name


class PredictionWriter(OrderedWriter):
    """Writes ``predictions.csv`` into the run directory: image, predicted class, its probability.

    The image is its position in the data set. A name that a spreadsheet would compute as a formula stands after an
    apostrophe, see :func:`as_text`.
    """

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
        probabilities, classes = prediction.max(1)
        with open(self._path, "a" if self.count else "w", newline="") as file:
            writer = csv.writer(file)
            if self.count == 0:
                writer.writerow(["image", "class", "probability"])
            for probability, index in zip(probabilities.tolist(), classes.tolist(), strict=True):
                writer.writerow([self.count, as_text(names[index]), f"{probability:.4f}"])
                self.count += 1

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        rank_zero_info(f"{self.count} predictions in {self._path}")

    @property
    def _path(self) -> Path:
        return self.folder / "predictions.csv"
