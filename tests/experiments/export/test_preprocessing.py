"""Resize and crop in the graph are those of evaluation, to a level of 255."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from datamodules.pipeline.geometry import Geometry
from experiments.export.preprocessing import Preprocessed


@pytest.mark.parametrize(
    ("crop_ratio", "interpolation"),
    [(None, "bilinear"), (0.875, "bilinear"), (0.875, "bicubic"), (1.0, "bilinear"), (1.0, "bicubic")],
)
@pytest.mark.parametrize("size", [(70, 91), (30, 200), (427, 300), (20, 25)])
def test_pixels_differ_by_a_level_at_most(size, interpolation, crop_ratio):
    image = load_sample_image("china.jpg")[: size[0], : size[1]]
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    expected = Geometry(32, crop_ratio, interpolation)(content.getvalue(), "x").permute(2, 0, 1).float()
    module = Preprocessed(torch.nn.Identity(), 32, crop_ratio, interpolation, (0.0,) * 3, (1 / 255,) * 3)
    (found,) = module(torch.from_numpy(np.ascontiguousarray(image))[None])
    difference = (found - expected).abs()
    assert difference.max() < 1.5
    assert difference.mean() < 0.05
