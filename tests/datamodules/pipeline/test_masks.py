"""Masks: palette PNGs, ADE20K's numbers, lists of names, and what can be wrong with them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image

from datamodules.pipeline.masks import VOID, decode_mask, list_masked, mask_table


def png(values, mode="L"):
    image = Image.fromarray(np.asarray(values, dtype=np.uint8))
    if mode == "P":
        image.putpalette(list(range(255, -1, -1)) * 3)  # colours that say nothing about the index
    else:
        image = image.convert(mode)
    with io.BytesIO() as file:
        image.save(file, "PNG")
        return file.getvalue()


VALUES = [[0, 1, 2], [255, 20, 0]]


@pytest.mark.parametrize("mode", ["P", "L"])
def test_indices_are_read_and_colours_are_not(mode):
    assert decode_mask(png(VALUES, mode), "m", mask_table(21), 2, 3).tolist() == VALUES


def test_ade20k_begins_at_1_and_camvid_has_a_void_class():
    assert decode_mask(png([[0, 1, 150]]), "m", mask_table(150, [0], 1), 1, 3).tolist() == [[VOID, 0, 149]]
    assert decode_mask(png([[0, 11, 10]]), "m", mask_table(11, [11]), 1, 3).tolist() == [[0, VOID, 10]]


@pytest.mark.parametrize(
    ("data", "table", "message"),
    [
        (png([[1, 2]]), mask_table(9), "bad.png has 2×1 pixels and its image 3×2"),
        (png(VALUES, "RGB"), mask_table(21), "bad.png has pixels of mode RGB"),
        (png(VALUES), mask_table(20), "bad.png has the value 20, which is none of the 20 classes"),
        (png(VALUES), mask_table(150, [0], 1), "bad.png has the value 255, which is none of the 150 classes"),
        (png([[255] * 3] * 2), mask_table(21), "bad.png is void in every pixel"),
        (png(VALUES)[:50], mask_table(21), "bad.png is not a whole mask"),
        (b"", mask_table(21), "bad.png is not a whole mask"),
    ],
    ids=range(7),
)
def test_a_bad_mask_is_named_in_one_sentence(data, table, message):
    with pytest.raises(MisconfigurationException, match=message):
        decode_mask(data, "bad.png", table, 2, 3)


def test_images_and_masks_are_matched_by_their_stems(tmp_path):
    for name in ("images/b.jpg", "images/a.png", "images/c.jpg", "masks/a.png", "masks/b.png", "images/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "train.txt").write_text("b\na extra\n")
    found = list_masked(tmp_path, "images", "masks", "train.txt")
    assert found.ids == ["b", "a"]
    assert found.images == ["images/b.jpg", "images/a.png"]
    assert found.masks == ["masks/b.png", "masks/a.png"]
    with pytest.raises(MisconfigurationException, match=r"c.jpg has no mask: .*masks/c.png is missing"):
        list_masked(tmp_path, "images", "masks")
