"""Boxes and masks stay on what they mark."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from torch.nn.functional import interpolate

from datamodules.pipeline.crops import Box
from datamodules.pipeline.resizes import cut, fit, flipped_boxes, nearest, photo_with_boxes, random_window


def encoded(image, kind="PNG", **options):
    with io.BytesIO() as file:
        Image.fromarray(image).save(file, kind, **options)
        return file.getvalue()


def test_the_short_side_is_reached_unless_the_long_one_would_be_too_long():
    assert fit(375, 500, 600, 1000) == (600, 800)
    assert fit(500, 375, 600, 1000) == (800, 600)
    assert fit(200, 500, 600, 1000) == (400, 1000)
    assert fit(1, 900, 100, 300) == (1, 300)


@pytest.mark.parametrize("flip", [False, True])
def test_boxes_lie_on_their_objects_after_resizing_and_mirroring(flip):
    image = np.zeros((60, 80, 3), np.uint8)
    image[12:36, 8:32] = 255
    boxes = torch.tensor([[8.0, 12, 32, 36]])
    draws = np.array([0.0, 0.4 if flip else 0.6])
    out, moved, mirrored = photo_with_boxes(encoded(image), "i", (60, 80), boxes, [120, 30], 999, draws)
    assert mirrored == flip
    assert out.shape == (120, 160, 3)
    rows, columns = (out[:, :, 0] > 127).nonzero().unbind(1)
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert moved.tolist() == [[float(side) for side in seen]]
    out, moved, _ = photo_with_boxes(encoded(image), "i", (60, 80), boxes, [120, 30], 999)
    assert out.shape == (30, 40, 3)
    assert moved.tolist() == [[4, 6, 16, 18]]


def test_mirroring_twice_and_no_boxes():
    boxes = torch.rand(5, 4) * 10
    torch.testing.assert_close(flipped_boxes(flipped_boxes(boxes, 50), 50), boxes)
    assert flipped_boxes(torch.zeros(0, 4), 50).shape == (0, 4)


def test_a_photo_of_another_size_or_turned_by_exif_is_named():
    image = np.zeros((60, 80, 3), np.uint8)
    with pytest.raises(MisconfigurationException, match=r"i.png has 80×60 pixels, but its annotation says 60×80"):
        photo_with_boxes(encoded(image), "i.png", (80, 60), torch.zeros(0, 4), [30], 99)
    exif = Image.Exif()
    exif[0x0112] = 3
    with pytest.raises(MisconfigurationException, match=r"i.jpg is turned by its EXIF data"):
        photo_with_boxes(encoded(image, "JPEG", exif=exif), "i.jpg", (60, 80), torch.zeros(0, 4), [30], 99)


@pytest.mark.parametrize(("length", "new"), [(7, 3), (3, 7), (10, 5), (5, 5), (180, 135)])
def test_nearest_takes_pixels_by_their_centres(length, new):
    line = torch.arange(length, dtype=torch.float32)
    assert nearest(length, new).tolist() == interpolate(line[None, None], size=new, mode="nearest-exact")[0, 0].tolist()


def test_windows_are_uniform_within_what_the_paper_allows():
    rng = np.random.default_rng(0)
    windows = [random_window(rng.random(4), 375, 500, 520, (0.5, 2.0), (480, 480)) for _ in range(400)]
    for box, (height, width) in windows:
        assert 0 <= box.top <= box.top + box.height <= 375
        assert 0 <= box.left <= box.left + box.width <= 500
        assert max(height, width) <= 480
        scale = height / box.height  # of both sides, but for whole pixels
        assert width / box.width == pytest.approx(scale, rel=0.03)
        assert 0.5 * 520 / 500 * 0.97 < scale < 2 * 520 / 500 * 1.03
    assert sum(box == Box(0, 0, 375, 500) for box, _ in windows) > 20
    assert len({box.left for box, _ in windows}) > 50


@pytest.mark.parametrize("flip", [False, True])
def test_mask_and_image_are_cut_alike(flip):
    rng = np.random.default_rng(0)
    mask = np.repeat(np.repeat(rng.integers(0, 2, (6, 8), dtype=np.uint8), 20, 0), 20, 1)
    image = np.repeat(mask[:, :, None] * 255, 3, 2)
    box, size = random_window(np.array([0.5, 0, 0.3, 0.7]), 120, 160, 160, (0.5, 2.0), (90, 100))
    part, labels = cut(image, mask, box, size, flip)
    assert part.shape == (*size, 3)
    assert labels.shape == size
    assert ((part[:, :, 0] > 127) == (labels == 1)).mean() > 0.98
    assert 0.2 < labels.mean() < 0.8
    plain, _ = cut(image, mask, box, size, False)
    assert np.array_equal(part, plain[:, ::-1] if flip else plain)
