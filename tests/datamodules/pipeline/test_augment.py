"""Our normalisation and erasing beside torchvision's."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

from datamodules.pipeline.augment import ERASING_DRAWS, affine, blank_box, cutout, erase, normalise, random_erasing
from datamodules.pipeline.randomness import uniforms

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
IMAGES = torch.randint(256, (81, 12, 10, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_normalise_is_torchvisions_and_contiguous(channels):
    images = IMAGES[..., :channels].contiguous()
    ours = normalise(images, MEAN[:channels], STD[:channels])
    scaled = tvf.to_dtype(images.permute(0, 3, 1, 2), torch.float32, scale=True)
    expected = tvf.normalize(scaled, MEAN[:channels], STD[:channels])
    torch.testing.assert_close(ours.permute(0, 3, 1, 2), expected, rtol=0, atol=2e-6)
    assert ours.permute(0, 3, 1, 2).is_contiguous(memory_format=torch.channels_last)


def test_inference_mode_does_not_spoil_later_training():
    affine.cache_clear()
    with torch.inference_mode():
        normalise(IMAGES, MEAN, STD)
    weight = torch.ones(3, requires_grad=True)
    (normalise(IMAGES, MEAN, STD) * weight).sum().backward()
    assert weight.grad is not None


def test_random_erasing_is_distributed_like_torchvisions():
    count, height, width = 4000, 32, 24
    boxes = random_erasing(uniforms(0, 0, torch.arange(count), ERASING_DRAWS), height, width, 0.5)
    erased = boxes[:, 1] > boxes[:, 0]
    assert abs(erased.float().mean() - 0.5) < 0.03
    boxes = boxes[erased]
    ours = torch.stack((boxes[:, 0], boxes[:, 2], boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]), 1).double()

    torch.manual_seed(0)
    transform = v2.RandomErasing(p=1)
    parameters = [transform.make_params([torch.empty(3, height, width)]) for _ in range(len(ours))]
    theirs = torch.tensor([[p["i"], p["j"], p["h"], p["w"]] for p in parameters]).double()
    assert boxes.min() >= 0
    assert (boxes[:, 1] <= height).all()
    assert (boxes[:, 3] <= width).all()
    for a, b in zip(ours.T, theirs.T, strict=True):
        below = [torch.searchsorted(sample.sort().values, torch.arange(33).double()) for sample in (a, b)]
        distance = (below[0] - below[1]).abs().max() / len(a)
        assert distance < 1.95 * (2 / len(a)) ** 0.5  # Kolmogorov-Smirnov, 99.9 %


def test_blank_box_blanks_its_box_and_nothing_else():
    boxes = torch.tensor([[0, 3, 2, 5], [-2, 2, 8, 14], [4, 4, 4, 4]])
    images = torch.ones(3, 12, 10, 3)
    blank_box(images, boxes)
    expected = torch.ones(3, 12, 10, 3)
    expected[0, 0:3, 2:5] = 0
    expected[1, 0:2, 8:10] = 0
    assert torch.equal(images, expected)


@pytest.mark.parametrize("mode", ["const", "pixel"])
def test_erased_rectangles_are_filled_as_timm_fills_them(mode):
    images = torch.full((400, 24, 20, 3), 7.0)
    draws = uniforms(1, 2, torch.arange(400), ERASING_DRAWS)
    erase(images, draws, 0.75, mode)
    boxes = random_erasing(draws, 24, 20, 0.75)
    erased = torch.zeros(400, 24, 20, dtype=torch.bool)
    for region, (top, bottom, left, right) in zip(erased, boxes.tolist(), strict=True):
        region[top:bottom, left:right] = True
    assert 0.05 < erased.float().mean() < 0.25
    assert (images[~erased] == 7).all()
    filling = images[erased].double()
    if mode == "const":
        assert (filling == 0).all()
        return
    count = filling.numel()
    assert abs(filling.mean()) < 5 / count**0.5
    assert abs(filling.var() - 1) < 5 * (2 / count) ** 0.5
    colours = torch.corrcoef(filling.T)
    assert (colours - torch.eye(3)).abs().max() < 5 / len(filling) ** 0.5


def test_noise_is_a_function_of_the_draws_of_its_image():
    draws = uniforms(1, 2, torch.arange(50), ERASING_DRAWS)
    images = torch.zeros(50, 24, 20, 3)
    erase(images, draws, 1.0, "pixel")
    again = torch.zeros(2, 24, 20, 3)
    erase(again, draws[[40, 7]], 1.0, "pixel")
    assert torch.equal(again, images[[40, 7]])
    assert len(images.flatten(1).sum(1).unique()) == 50


def test_cutout_squares_have_their_side_and_a_centre_anywhere():
    boxes = cutout(uniforms(0, 0, torch.arange(5000), 2), 32, 32, 8)
    assert (boxes[:, 1] - boxes[:, 0] == 8).all()
    assert (boxes[:, 3] - boxes[:, 2] == 8).all()
    assert boxes[:, 0].unique().tolist() == list(range(-4, 28))
