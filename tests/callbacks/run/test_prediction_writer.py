"""Names of classes in predictions.csv are no formulas, and can be read back."""

import csv
import shutil

import pytest

from callbacks.run.prediction_writer import as_text

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
