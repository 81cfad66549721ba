"""``fathom predict RUN --images`` sees what the run's evaluation sees, and says what it could not read."""

import csv
import shutil
import unicodedata

import numpy as np
import pytest
import torch
from lightning.pytorch import seed_everything
from PIL import Image

from datamodules import Photos, SmallImages
from experiments.export.contact_sheet import contact_sheet
from experiments.export.pictures import pictures
from experiments.export.trained import open_trained

CONFIG = """
model:
  class_path: lit_models.ImageClassifier
  init_args:
    net: {{class_path: lit_models.CIFARResNet, init_args: {{depth: 8, width: 4}}}}
data:
  class_path: datamodules.{data}
  init_args: {{root: {root}, image_size: 20, batch_size: 16, num_workers: 0{more}}}
trainer: {{max_epochs: 1, enable_progress_bar: false}}
wandb: {{mode: disabled}}
"""


def trained_on(folder, tmp_path, fathom, data, more):
    config = tmp_path / f"{data}.yaml"
    config.write_text(CONFIG.format(data=data, root=folder, more=more))
    assert fathom("fit", "--config", config, "--trainer.default_root_dir", tmp_path / "runs") == (0, "")
    (run,) = (tmp_path / "runs" / data).iterdir()
    return run


def rows_of(table):
    with open(table, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def oblong_folder(digits_folder):
    """The digits as photos that are wider than high."""
    for path in digits_folder.rglob("*.png"):
        Image.open(path).resize((40, 30)).save(path)
    return digits_folder


@pytest.mark.parametrize(
    ("data", "more"),
    [("Photos", ", crop_ratio: 0.8, interpolation: bicubic, corrupt: stop"), ("SmallImages", ", val_fraction: 0.2")],
)
def test_the_probabilities_are_those_of_the_test_part(data, more, oblong_folder, tmp_path, fathom):
    run = trained_on(oblong_folder, tmp_path, fathom, data, more)
    given = {"crop_ratio": 0.8, "interpolation": "bicubic"} if data == "Photos" else {}
    kind = {"Photos": Photos, "SmallImages": SmallImages}[data]
    module = kind(oblong_folder, image_size=20, num_workers=0, **given)
    listed = module._test_listing if data == "Photos" else module._folder.test()
    trained = open_trained(run)
    with torch.inference_mode():
        (batch,) = module.batches("test")
        expected = trained.net(batch[0]).softmax(1).amax(1)

    shutil.rmtree(oblong_folder / "train")  # the data of the training need not be there
    nested = oblong_folder / "test" / "영 zero" / "2019 holiday"
    nested.mkdir()
    shutil.move(oblong_folder / "test" / "영 zero" / "20.png", nested / "20.png")
    out = tmp_path / "table.csv"
    assert fathom("predict", run, "--images", oblong_folder / "test", "--out", out) == (0, "")
    rows = rows_of(out)
    probabilities = {row["file"].rpartition("test/")[2]: float(row["probability_1"]) for row in rows}
    files = [file.replace("2019 holiday/", "") for file in probabilities]
    by_file = dict(zip(files, probabilities.values(), strict=True))
    ours = torch.tensor([by_file[file.removeprefix("test/")] for file in listed.files])
    torch.testing.assert_close(ours, expected, atol=6e-5, rtol=0)  # four digits in the table
    assert {row["label"] for row in rows} == {"영 zero", "하나 one"}


def test_what_can_not_be_read_is_named_and_counted(tiny_run, digits_folder, tmp_path, capsys, fathom):
    from experiments.__main__ import main

    for name in ("kaputt.JPG", "empty.png"):
        (digits_folder / "test" / "영 zero" / name).write_bytes(b"no image" * (name != "empty.png"))
    out = tmp_path / "out" / "table.csv"
    words = [str(digits_folder / "test"), str(digits_folder / "train/*/1.png")]
    assert main(["predict", str(tiny_run), "--images", *words, "--worst", "3", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "kaputt.JPG is not a whole image" in printed
    assert "empty.png is empty" in printed
    assert "2 of 12 files can't be read" in printed
    rows = rows_of(out)
    assert len(rows) == 10
    assert set(rows[0]) == {"file", "label", *(f"{kind}_{i}" for i in range(1, 6) for kind in ("class", "probability"))}
    assert {row["label"] for row in rows} == {""}  # the run's classes are called 0 to 9
    assert "top-1" not in printed


def test_labelled_images_give_an_accuracy_and_a_sheet_of_mistakes(tiny_run, digits_folder, tmp_path, capsys):
    from experiments.__main__ import main

    (digits_folder / "test" / "영 zero").rename(digits_folder / "test" / "0")
    (digits_folder / "test" / "하나 one").rename(digits_folder / "test" / "1")
    assert main(["predict", str(tiny_run), f"--images={digits_folder / 'test'}", "--worst", "2"]) == 0
    printed = capsys.readouterr().out
    (table,) = (tiny_run / "predict").glob("*/predictions.csv")
    rows = rows_of(table)
    right = sum(row["label"] == row["class_1"] for row in rows)
    assert f"top-1 {right / 8:.2%} of 8 labelled images" in printed
    assert "95% interval" in printed
    sheet = np.asarray(Image.open(table.with_name("worst.png")))
    assert sheet.std() > 10
    shutil.rmtree(tiny_run / "predict")


def test_captions_take_a_font_that_has_their_letters(tmp_path):
    """Greek is in a font that comes with matplotlib; the last letter is in none."""
    image = np.zeros((8, 8, 3), np.uint8)
    assert contact_sheet([image], ["λ"], tmp_path / "greek.png") == ""
    assert contact_sheet([image], ["·"], tmp_path / "dot.png") == ""
    assert contact_sheet([image], ["a\U0010fffd"], tmp_path / "none.png") == "\U0010fffd"
    greek, dot = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("greek", "dot"))
    assert (greek != dot).any()


def test_a_folder_names_a_class_in_whatever_code_points(tmp_path):
    folder = tmp_path / unicodedata.normalize("NFD", "고양이")
    folder.mkdir()
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    (picture,) = pictures([str(folder)])
    assert picture.label(["개", "고양이"]) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "say which images"),
        (("--images", "nowhere/*.png"), "names no image"),
        (("--images", "x", "--wrost", "3"), "there is no flag"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(words, sentence, tiny_run, fathom):
    code, said = fathom("predict", tiny_run, *words)
    assert code != 0
    assert sentence in said


def test_predict_help_of_both_forms(capsys):
    from experiments.__main__ import main

    seed_everything(0, verbose=False)
    with pytest.raises(SystemExit):
        main(["predict", "run", "--help"])
    assert "--images" in capsys.readouterr().out
