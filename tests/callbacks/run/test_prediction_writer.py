"""Predictions stand beside the images they are of; names of classes are no formulas, and can be read back."""

import csv
import shutil

import lightning as L
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks import PredictionWriter
from callbacks.run.map_writers import DetectionWriter, MaskWriter
from callbacks.run.prediction_writer import as_text
from datamodules import Photos
from datamodules.pipeline.batches import Loader

NAMES = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'quoted", "''twice", "cat", "a=b", "", "0"]


@pytest.mark.parametrize("name", NAMES)
def test_no_cell_is_a_formula_and_each_gives_its_name_back(name):
    cell = as_text(name)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert cell.removeprefix("'") == name
    assert cell == name or cell == f"'{name}"


def test_predict_writes_such_names_as_text(digits_folder, tiny_config, fathom, tmp_path):
    for part in ("train", "test"):
        names = sorted(path.name for path in (digits_folder / part).iterdir())
        for old, new in zip(names, ("=HYPERLINK(1)", "@one"), strict=True):
            shutil.move(digits_folder / part / old, digits_folder / part / new)
    data = ("--data", "datamodules.SmallImages", "--data.root", digits_folder, "--data.train_size", 16)
    runs = ("--trainer.default_root_dir", tmp_path / "runs")
    assert fathom("fit", "--config", tiny_config, *data, *runs)[0] == 0
    (checkpoint,) = (tmp_path / "runs").glob("tiny/*/checkpoints/last.ckpt")
    assert fathom("predict", "--ckpt_path", checkpoint, "--trainer.default_root_dir", tmp_path / "predictions")[0] == 0
    (table,) = (tmp_path / "predictions").rglob("predictions.csv")
    with open(table, newline="") as file:
        cells = [row["class"] for row in csv.DictReader(file)]
    assert len(cells) == 8
    assert set(cells) <= {"'=HYPERLINK(1)", "'@one"}


DETECTIONS = {"boxes": torch.ones(1, 4), "scores": torch.ones(1), "labels": torch.zeros(1, dtype=torch.int64)}
WRITERS = {
    PredictionWriter: torch.eye(2)[[0, 1, 1]],
    DetectionWriter: [DETECTIONS] * 3,
    MaskWriter: torch.ones(3, 2, 2, dtype=torch.uint8),
}


class _Same(L.LightningModule):
    num_classes = 2

    def __init__(self, prediction):
        super().__init__()
        self.prediction = prediction

    def predict_step(self, batch, batch_idx):
        return self.prediction


class _Numbered(L.LightningDataModule):
    class_names = ("cat", "dog")

    def predict_dataloader(self):
        return Loader(lambda: range(2), self.batch, 2)

    @staticmethod
    def batch(number):
        return torch.zeros(3, 1, 2, 2), {"ids": [3 * number + i for i in range(3)], "original_sizes": [(2, 2)] * 3}


def _trainer(path, writer) -> L.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(default_root_dir=path, callbacks=[writer], accelerator="cpu", **quiet)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_writer_begins_each_prediction_from_the_first_image(kind, tmp_path):
    writer = kind()
    seen = []
    for _ in range(2):
        _trainer(tmp_path / "run", writer).predict(_Same(WRITERS[kind]), _Numbered())
        files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
        seen.append({path.name: path.read_bytes() for path in files})
    assert seen[0]
    assert seen[0] == seen[1]


def test_predictions_are_refused_where_images_may_be_missing(digits_folder, tmp_path):
    data = Photos(str(digits_folder), image_size=8, corrupt="skip", num_workers=0)
    with pytest.raises(
        MisconfigurationException, match=r"predictions are numbered by image.* set data\.corrupt to stop"
    ):
        _trainer(tmp_path, PredictionWriter()).predict(_Same(None), data)
