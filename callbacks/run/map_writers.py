"""Predictions of detectors and segmenters as files that other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from PIL import Image

from callbacks.run.ordered_writer import OrderedWriter
from lit_models.pictures import coco_results, write_mask, write_results


class DetectionWriter(OrderedWriter):
    """Writes ``detections.json``: the results format of COCO, boxes in pixels of the image files.

    A class has the id that the data module's ``category_ids`` gives it, or its label plus 1.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._results: list[dict[str, Any]] = []

    def write_on_batch_end(
        self, trainer: Any, pl_module: Any, prediction: Any, batch_indices: Any, batch: Any, *_: Any
    ) -> None:
        _, targets = batch
        sizes = targets["original_sizes"]
        categories = getattr(trainer.datamodule, "category_ids", None)
        self._results += coco_results(prediction, targets["ids"], sizes, sizes, categories)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        write_results(self.folder / "detections.json", self._results)
        rank_zero_info(f"{len(self._results)} detections in {self.folder / 'detections.json'}")


class MaskWriter(OrderedWriter):
    """Writes ``masks/NAME.png``: the class of each pixel as an index, with a palette.

    They have the names and the sizes of the photos where the data module lists these with ``files``, as one of ours
    does; with another they are numbered, and as large as the images of the batch.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        root, files = data.files(test=True) if hasattr(data, "files") else (Path(), [])
        self._photos = [root / file for file in files]

    def write_on_batch_end(
        self, trainer: Any, pl_module: Any, prediction: Any, batch_indices: Any, batch: Any, *_: Any
    ) -> None:
        folder = self.folder / "masks"
        folder.mkdir(exist_ok=True)
        for mask in prediction:
            name = f"{self.count:06}"
            if self._photos:
                photo = self._photos[self.count]
                height, width = _size(photo)
                name, mask = photo.stem, mask[:height, :width]  # without the padding
            write_mask(folder / f"{name}.png", mask, pl_module.num_classes)
            self.count += 1

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        rank_zero_info(f"{self.count} masks in {self.folder / 'masks'}")


def _size(photo: Path) -> tuple[int, int]:
    """Height and width, from the head of the file."""
    with Image.open(photo) as image:
        return image.height, image.width
