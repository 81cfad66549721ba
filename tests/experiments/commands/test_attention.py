"""``fathom attention`` as one types it."""

import csv
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import Digits, Photos, SmallImages
from experiments.__main__ import main
from experiments.commands.attention import image_files

OFF = ("--wandb.mode", "disabled")


@pytest.fixture
def photos(tmp_path):
    """Three photos of different shapes, in a folder with other things."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name, shape in (("a.jpg", (40, 60, 3)), ("b.png", (50, 50, 3)), ("below/c.png", (70, 30, 3))):
        Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_several_networks_look_at_photos(tiny_run, photos, tmp_path):
    pytest.importorskip("captum", reason="the extra `attention` is not installed")
    assert main(["attention", str(tiny_run), str(tiny_run), "--images", str(photos), *OFF, "--out", str(tmp_path)]) == 0
    table = rows(tmp_path / "attention.csv")
    assert [row["image"] for row in table] == ["a.jpg", "b.png", "c.png"] * 2
    assert len({row["network"] for row in table}) == 1, "one run, twice"
    assert {row["class"] for row in table} <= set(Digits().class_names)
    assert all(0 < float(row["probability"]) <= 1 for row in table)
    with Image.open(tmp_path / "attention.png") as figure:
        assert figure.size == (3 * 440, 3 * 480)
    options = ["--data", "datamodules.Digits", "--data.image_size", "32", *OFF, "--out", str(tmp_path)]
    assert main(["attention", "timm:test_resnet", "--images", str(photos / "a.jpg"), *options]) == 0
    assert [row["network"] for row in rows(tmp_path / "attention.csv")] == ["timm:test_resnet"]


def test_images_are_prepared_as_those_of_the_test(digits_folder, photos):
    """Images of a data set's own test part are then those that its test loader hands out."""
    files = sorted(digits_folder.glob("test/*/*.png"))
    for data in (
        SmallImages(str(digits_folder)),
        SmallImages(str(digits_folder), image_size=12),
        Photos(str(digits_folder), image_size=16, num_workers=0, batch_size=8),
    ):
        data.setup("test")
        known = torch.cat([images for images, _ in data.batches("test")])
        prepared = data.evaluation_images(files)
        assert prepared.shape == known.shape
        for image in prepared:
            assert any(torch.equal(image, other) for other in known)
    grey = Digits(image_size=16).evaluation_images([photos / "a.jpg", photos / "below/c.png"])
    assert grey.shape == (2, 1, 16, 16)


def test_a_folder_gives_some_of_its_images(photos):
    assert image_files(photos, 8) == [photos / "a.jpg", photos / "b.png", photos / "below" / "c.png"]
    assert image_files(photos, 2) == [photos / "a.jpg", photos / "b.png"]
    assert image_files(photos / "b.png", 1) == [photos / "b.png"]


def test_what_is_missing_is_one_sentence(tiny_run, photos, tmp_path, fathom, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.png").write_bytes(b"no image")
    for images, expected in (
        (tmp_path / "nowhere", "give --images an image file or a folder of them"),
        (tmp_path / "empty", "empty has no image in it"),
        (tmp_path / "broken.png", "broken.png"),
    ):
        code, sentence = fathom("attention", tiny_run, "--images", images, *OFF)
        assert code == 1
        assert expected in sentence
    code, sentence = fathom("attention", tiny_run, *OFF)
    assert (code, sentence) == (1, "say where to look: --images with an image file or a folder of them")
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    code, sentence = fathom("attention", tiny_run, "--images", photos, *OFF)
    assert (code, sentence) == (1, "Attention maps need captum: pip install 'fathom-depth[attention]'.")
