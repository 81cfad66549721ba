"""Our crops and flips beside torchvision's."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

from datamodules.pipeline.augment import normalise
from datamodules.pipeline.randomness import uniforms
from datamodules.pipeline.windows import Crops, Windows, normalise_crops

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
# Every offset of a crop from an image padded by 4, each of an image of its own.
OFFSETS = torch.cartesian_prod(torch.arange(9), torch.arange(9))
IMAGES = torch.randint(256, (81, 12, 10, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("mirrored", [None, False, True])
@pytest.mark.parametrize("padding", ["zero", "reflect"])
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_a_crop_and_a_flip_are_torchvisions_pixel_by_pixel(padding, mirrored, kind):
    order = torch.arange(80, -1, -1)  # the first and the last image of the memory are among them
    top, left = (OFFSETS - 4).unbind(1)
    flip = None if mirrored is None else torch.full((81,), mirrored)
    crops = Crops(top, -left if mirrored else left, flip)
    windows = Windows.of(IMAGES.to(kind), mirrored is not None, border=4 if padding == "reflect" else 0)
    assert torch.equal(windows.images(81), IMAGES)
    found = windows.at(order, crops)
    assert found.dtype == kind
    if padding == "reflect":
        ours = normalise(found, MEAN, STD)
    else:
        ours = normalise_crops(found, MEAN, STD, crops, 4)
    assert ours.permute(0, 3, 1, 2).is_contiguous(memory_format=torch.channels_last)

    mode = "constant" if padding == "zero" else padding
    for image, result, (y, x) in zip(IMAGES[order], ours, OFFSETS.tolist(), strict=True):
        # Zero padding is of the normalised image: what comes in is the mean colour.
        expected = tvf.normalize(tvf.to_dtype(image.permute(2, 0, 1), torch.float32, scale=True), MEAN, STD)
        expected = tvf.crop(tvf.pad(expected, [4], padding_mode=mode), y, x, 12, 10)
        expected = tvf.horizontal_flip(expected) if mirrored else expected
        torch.testing.assert_close(result.permute(2, 0, 1), expected, rtol=0, atol=2e-6)


def test_without_padding_whole_images_are_mirrored():
    draws = uniforms(0, 0, torch.arange(81), 3)
    crops = Crops.drawn(draws, shift=0, flip=True)
    found = Windows.of(IMAGES, mirrored=True).at(torch.arange(81), crops)
    assert torch.equal(normalise_crops(found, MEAN, STD, crops, 0), normalise(found, MEAN, STD))
    for image, result, u in zip(IMAGES, found, draws[:, 2], strict=True):
        assert torch.equal(result, image.flip(1) if u < 0.5 else image)


def test_offsets_and_flips_are_distributed_like_torchvisions():
    top, left, mirrored = Crops.drawn(uniforms(0, 0, torch.arange(20_000), 3), shift=4, flip=True)
    ours = ((top + 4) * 9 + torch.where(mirrored, -left, left) + 4).bincount(minlength=81)
    torch.manual_seed(0)
    crop = v2.RandomCrop(32, padding=4)
    parameters = [crop.make_params([torch.empty(3, 32, 32)]) for _ in range(20_000)]
    theirs = torch.tensor([p["top"] * 9 + p["left"] for p in parameters]).bincount(minlength=81)
    assert (theirs > 0).all()
    # Two samples of one distribution: chi-square with 80 degrees of freedom is below 125 in 99.9 % of cases.
    assert ((ours - theirs).square() / (ours + theirs)).sum() < 125
    assert abs(mirrored.float().mean() - 0.5) < 0.015


def test_images_on_any_device_go_through_the_same_lookup():
    fake = torch.zeros(4, 6, 6, 3, dtype=torch.uint8, device="meta")
    crops = Crops.drawn(torch.zeros(2, 3, device="meta"), shift=2, flip=True)
    found = Windows.of(fake, mirrored=True).at(torch.zeros(2, dtype=torch.long, device="meta"), crops)
    assert normalise_crops(found, MEAN, STD, crops, 2).shape == (2, 6, 6, 3)
