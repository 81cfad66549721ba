"""Predictions of detectors and segmenters as files that other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lit_models.pictures import coco_results, write_mask, write_results


class _Writer(BasePredictionWriter):
    """Writes into the run directory, on one device."""

    def __init__(self) -> None:
        super().__init__(write_interval="batch")

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if trainer.world_size > 1:
            raise MisconfigurationException("predict writes in order, on one device: add --trainer.devices 1")
        self.folder = Path(trainer.default_root_dir)
        self.folder.mkdir(parents=True, exist_ok=True)


class DetectionWriter(_Writer):
    """Writes ``detections.json``: the results format of COCO, boxes in pixels of the image files."""

    def __init__(self) -> None:
        super().__init__()
        self._results: list[dict[str, Any]] = []

    def write_on_batch_end(
        self, trainer: Any, pl_module: Any, prediction: Any, batch_indices: Any, batch: Any, *_: Any
    ) -> None:
        _, targets = batch
        self._results += coco_results(prediction, targets["ids"], targets["original_sizes"], targets["original_sizes"])

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        write_results(self.folder / "detections.json", self._results)
        rank_zero_info(f"{len(self._results)} detections in {self.folder / 'detections.json'}")


class MaskWriter(_Writer):
    """Writes ``masks/NAME.png``: the class of each pixel as an index, with a palette."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def write_on_batch_end(
        self, trainer: Any, pl_module: Any, prediction: Any, batch_indices: Any, batch: Any, *_: Any
    ) -> None:
        names = getattr(trainer.datamodule, "test_names", None)
        (self.folder / "masks").mkdir(exist_ok=True)
        for mask in prediction:
            name = names[self._count] if names else f"{self._count:06}"
            write_mask(self.folder / "masks" / f"{name}.png", mask, pl_module.num_classes)
            self._count += 1

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        rank_zero_info(f"{self._count} masks in {self.folder / 'masks'}")
