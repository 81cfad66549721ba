"""Geometry of training and testing beside torchvision's; the whole pipeline on real photos."""

from __future__ import annotations

import io
import math
import pickle

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

from datamodules import ImageNet, Photos
from datamodules.photos import PHOTO_DRAWS
from datamodules.pipeline.crops import DRAWS, Box, centre_crop, random_resized_box, random_resized_crop, resize
from datamodules.pipeline.policies import apply_policy, make_policy
from datamodules.pipeline.randomness import uniforms


def _encode(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def _smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width] / np.array([height, width])[:, None, None]
    channels = [127 + 100 * np.sin(5 * y + 3 * c) * np.cos(4 * x - c) for c in range(3)]
    return np.stack(channels, 2).round().astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(300, 225), (100, 500), (2000, 30)])
def test_boxes_are_distributed_like_torchvisions(height, width):
    count = 3000
    draws = uniforms(0, 0, torch.arange(count), DRAWS).numpy()
    ours = torch.tensor([random_resized_box(row, height, width) for row in draws]).double()
    torch.manual_seed(0)
    transform = v2.RandomResizedCrop(224)
    image = [torch.empty(3, height, width)]
    parameters = [transform.make_params(image) for _ in range(count)]
    theirs = torch.tensor([[p["top"], p["left"], p["height"], p["width"]] for p in parameters]).double()
    assert (ours[:, 0] + ours[:, 2] <= height).all()
    assert (ours[:, 1] + ours[:, 3] <= width).all()
    grid = torch.arange(2001).double()
    for a, b in zip(ours.T, theirs.T, strict=True):
        below = [torch.searchsorted(sample.sort().values, grid) for sample in (a, b)]
        assert (below[0] - below[1]).abs().max() / count < 1.95 * math.sqrt(2 / count)  # Kolmogorov-Smirnov, 99.9 %


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_crop_is_torchvisions_pixel_by_pixel(interpolation):
    pixels = _smooth(120, 150)
    draws = uniforms(0, 0, torch.arange(20), DRAWS).numpy()
    for row in draws:
        box = random_resized_box(row, 120, 150)
        ours = random_resized_crop(_encode(pixels), "x", row, 64, (0.08, 1.0), (3 / 4, 4 / 3), interpolation)
        expected = tvf.resized_crop(
            torch.from_numpy(pixels).permute(2, 0, 1),
            *box,
            size=[64, 64],
            interpolation=v2.InterpolationMode(interpolation),
        )
        assert torch.equal(ours.permute(2, 0, 1), expected)


@pytest.mark.parametrize(("height", "width"), [(300, 225), (225, 300), (256, 256), (100, 333)])
@pytest.mark.parametrize(
    ("size", "crop_ratio", "side"),
    [(224, 0.875, 256), (64, 0.875, 73), (224, 0.95, 235), (288, 0.95, 303), (32, 1.0, 32)],
)
def test_test_geometry_is_torchvisions_pixel_by_pixel(height, width, size, crop_ratio, side):
    """``side`` is what timm floors size / crop_ratio to."""
    pixels = _smooth(height, width)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    expected = v2.Compose([v2.Resize(side, antialias=True), v2.CenterCrop(size)])(image)
    ours = centre_crop(_encode(pixels), "x", size, crop_ratio, "bilinear")
    assert torch.equal(ours.permute(2, 0, 1), expected)


def test_resize_antialiases_as_pillow_does():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (200, 260, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((52, 40), Image.Resampling.BILINEAR)).astype(int)
    ours = resize(torch.from_numpy(pixels), 40, 52, "bilinear").numpy().astype(int)
    assert abs(ours - expected).max() <= 1


def test_a_large_photo_is_decoded_at_a_smaller_scale_and_looks_the_same(monkeypatch):
    pixels = _smooth(1600, 2400)
    data = _encode(pixels, "JPEG", quality=95)
    sizes = []
    from datamodules.pipeline import crops

    decode = crops.decode

    def watched(*args):
        image = decode(*args)
        sizes.append(image.shape[:2])
        return image

    monkeypatch.setattr(crops, "decode", watched)
    for row in uniforms(0, 0, torch.arange(20), DRAWS).numpy():
        box = random_resized_box(row, 1600, 2400)
        ours = random_resized_crop(data, "x", row, 64, (0.08, 1.0), (3 / 4, 4 / 3), "bilinear")
        exact = tvf.resized_crop(torch.from_numpy(pixels).permute(2, 0, 1), *box, size=[64, 64])
        assert (ours.permute(2, 0, 1).int() - exact.int()).abs().max() <= 6
    assert max(sizes) < (1600, 2400)
    assert min(sizes) == (200, 300)


@pytest.mark.parametrize(
    ("image_size", "decode", "largest"), [(64, None, 0.1), (64, "exact", 0.1), (64, "scaled", 6), (160, None, 6)]
)
def test_photos_are_decoded_in_full_where_a_smaller_scale_would_show(folder, image_size, decode, largest):
    """Against Pillow's crop and resize; at 64 pixels a smaller scale is off by more than a level in the mean."""
    rng = np.random.default_rng(0)
    pixels = np.clip(_smooth(1600, 2400) + rng.normal(0, 30, (1600, 2400, 3)), 0, 255).astype(np.uint8)
    data = _encode(pixels, "JPEG", quality=95)
    photos = Photos(str(folder), image_size=image_size, decode=decode, flip=False)
    train, _ = photos._transforms()
    draws = uniforms(0, 0, torch.arange(3), PHOTO_DRAWS).numpy()
    differences = []
    for index, row in enumerate(draws):
        top, left, height, width = random_resized_box(row[:DRAWS], 1600, 2400)
        crop = Image.open(io.BytesIO(data)).crop((left, top, left + width, top + height))
        expected = np.asarray(crop.resize((image_size, image_size), Image.Resampling.BILINEAR)).astype(int)
        ours = train(data, "x", draws=row, epoch=0, index=index).numpy()
        differences.append(abs(ours - expected).mean())
    assert np.mean(differences) < largest
    assert (np.mean(differences) > 0.3) == (largest == 6)


def test_pictures_of_extreme_sizes():
    draws = np.full(DRAWS, 0.5, np.float32)
    for height, width in [(1, 1), (10_000, 10), (10, 10_000)]:
        data = _encode(_smooth(height, width))
        assert random_resized_crop(data, "x", draws, 32, (0.08, 1.0), (0.75, 1.33), "bilinear").shape == (32, 32, 3)
        assert centre_crop(data, "x", 32, 0.875, "bilinear").shape == (32, 32, 3)
    big = _encode(np.full((10_000, 10_000, 3), 90, np.uint8), "JPEG")
    assert centre_crop(big, "x", 32, 0.875, "bilinear").shape == (32, 32, 3)


def test_fallback_is_the_largest_central_box():
    assert random_resized_box(np.zeros(DRAWS, np.float32), 1000, 10, scale=(1.0, 1.0)) == Box(493, 0, 13, 10)


def _epoch(data: Photos, epoch: int = 0) -> list:
    data.load_state_dict({"epoch": epoch, "offset": 0})
    return [data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader()]


def test_batches_of_real_photos(caltech):
    data = Photos(str(caltech), image_size=64, batch_size=50, num_workers=0, train_size=100, erasing=0.5)
    data.setup("fit")
    assert data.num_classes == len(data.class_names) == 25
    assert data.mean == pytest.approx((0.5252, 0.5147, 0.4845), abs=1e-4)
    assert data.std == pytest.approx((0.3108, 0.3024, 0.3155), abs=1e-4)
    images, targets = _epoch(data)[0]
    assert images.shape == (50, 3, 64, 64)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert targets.dtype == torch.int64
    assert abs(float(images.mean())) < 0.3


def test_workers_make_the_batches_that_the_main_process_makes(caltech):
    options = {"image_size": 64, "batch_size": 25, "train_size": 75, "policy": "rand-m9-mstd0.5-inc1", "erasing": 0.5}
    alone = Photos(str(caltech), num_workers=0, **options)
    helped = Photos(str(caltech), num_workers=2, **options)
    for epoch in (0, 1):
        for (ours, labels), (theirs, others) in zip(_epoch(alone, epoch), _epoch(helped, epoch), strict=True):
            assert torch.equal(ours, theirs)
            assert torch.equal(labels, others)


def test_the_test_part_is_in_order_and_whole(caltech):
    data = Photos(str(caltech), image_size=32, num_workers=0, eval_batch_size=64)
    data.setup("test")
    targets = torch.cat([data.on_after_batch_transfer(batch, 0)[1] for batch in data.test_dataloader()])
    assert targets.bincount().tolist() == [20] * 25


def test_imagenet_has_the_published_statistics(folder):
    assert ImageNet(str(folder)).mean == (0.485, 0.456, 0.406)
    assert ImageNet(str(folder), mean=(0.5, 0.5, 0.5)).mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    "name", ["RandAugment", "TrivialAugmentWide", "AutoAugment", "rand-m9-mstd0.5-inc1", "augmix-m3"]
)
def test_a_policy_is_a_function_of_its_counters_and_disturbs_nothing(name):
    policy = pickle.loads(pickle.dumps(make_policy(name, (0.5, 0.5, 0.5))))  # as on its way to a worker
    image = torch.from_numpy(_smooth(64, 64))
    torch.manual_seed(7)
    before = torch.get_rng_state()
    results = [apply_policy(policy, image, 0, 0, index) for index in (*range(6), *range(6))]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(result.shape == (64, 64, 3) and result.dtype == torch.uint8 for result in results)
    for first, second in zip(results[:6], results[6:], strict=True):
        assert torch.equal(first, second)
    assert len({result.numpy().tobytes() for result in results[:6]}) > 1


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_timms_policies_interpolate_as_the_crop_does(folder, interpolation):
    """timm's loaders set it; on its own a policy draws one of the two for each operation."""
    photos = Photos(str(folder), interpolation=interpolation, policy="rand-m7-mstd0.5-inc1")
    train, _ = photos._transforms()
    operations = train.keywords["policy"].args[0].ops
    assert {operation.kwargs["resample"] for operation in operations} == {Image.Resampling[interpolation.upper()]}


def test_an_unknown_policy_is_refused(folder):
    with pytest.raises(MisconfigurationException, match="policy is 'RandomAugment'"):
        Photos(str(folder), policy="RandomAugment")
