"""Pictures show what they should, and files say what was found."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from lit_models.pictures import (
    coco_results,
    colours,
    draw_boxes,
    draw_mask,
    pixels,
    write_mask,
    write_picture,
    write_results,
)


def test_colours_can_be_told_apart():
    palette = torch.tensor(colours(21), dtype=torch.float32)
    assert torch.cdist(palette, palette).fill_diagonal_(999).min() > 25


def test_boxes_have_the_colours_of_their_classes_and_pictures_are_written(tmp_path):
    image = torch.zeros(3, 60, 80, dtype=torch.uint8)
    boxes = torch.tensor([[5.0, 20, 30, 50], [40, 20, 70, 55]])
    drawn = draw_boxes(image, boxes, torch.tensor([0, 1]), ["cat", "dog"], torch.tensor([0.9, 0.5]))
    assert tuple(drawn[:, 50, 10].tolist()) == colours(2)[0]
    assert tuple(drawn[:, 55, 50].tolist()) == colours(2)[1]
    unnamed = draw_boxes(image, boxes, torch.tensor([0, 1]), ["cat", "dog"])
    assert (drawn != unnamed).any()  # the scores
    write_picture(tmp_path / "new" / "a.png", drawn)
    assert np.array_equal(np.array(Image.open(tmp_path / "new" / "a.png")), drawn.permute(1, 2, 0).numpy())
    assert draw_boxes(image, boxes[:0], torch.tensor([], dtype=torch.int64), ["cat"]).equal(image)


def test_masks_colour_their_pixels_and_void_ones_stay():
    image = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    mask = torch.full((4, 4), 255)
    mask[0] = 1
    drawn = draw_mask(image, mask, 3)
    assert (drawn[:, 1:] == 100).all()
    mixed = [0.4 * 100 + 0.6 * level for level in colours(3)[1]]
    assert drawn[:, 0, 0].tolist() == pytest.approx(mixed, abs=1)


def test_normalised_images_look_as_they_did():
    image = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(1, 3, 1, 1)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)
    m, s = (torch.tensor(v).view(3, 1, 1) for v in (mean, std))
    assert pixels((image / 255 - m) / s, mean, std).equal(image)


def test_masks_are_written_as_indices(tmp_path):
    mask = torch.tensor([[0, 1, 255], [2, 2, 0]])
    write_mask(tmp_path / "m.png", mask, 3)
    with Image.open(tmp_path / "m.png") as image:
        assert image.mode == "P"
        assert np.array(image).tolist() == mask.tolist()
        assert image.convert("RGB").getpixel((1, 0)) == colours(3)[1]


def test_detections_are_written_in_pixels_of_the_original(tmp_path):
    found = {"boxes": torch.tensor([[10.0, 20, 30, 60]]), "scores": torch.tensor([0.75]), "labels": torch.tensor([1])}
    results = coco_results([found], [7], [(100, 200)], [(50, 400)], [1, 13])
    write_results(tmp_path / "r.json", results)
    assert json.loads((tmp_path / "r.json").read_text()) == [
        {"image_id": 7, "category_id": 13, "bbox": [20, 10, 40, 20], "score": 0.75}
    ]
    assert coco_results([found], ["a"], [(1, 1)], [(1, 1)])[0]["category_id"] == 2
