"""Photos with boxes or masks through their DataModules, on real sets."""

from __future__ import annotations

import zipfile

import pytest
import torch

from datamodules import SegmentationFolder, VOCDetection


@pytest.fixture(scope="module")
def bccd(real_data, tmp_path_factory):
    path = tmp_path_factory.mktemp("bccd")
    with zipfile.ZipFile(real_data / "bccd-voc.zip") as file:
        file.extractall(path)
    parts = {part: [f"VOC2007/{part}"] for part in ("train", "val", "test")}
    statistics = {"mean": (0.7, 0.7, 0.7), "std": (0.1, 0.1, 0.1)}
    return lambda **options: VOCDetection(path, **parts, image_size=60, max_size=80, **statistics, **options)


def test_batches_hold_every_object_on_a_padded_canvas_whoever_made_them(bccd):
    data = bccd(batch_size=20, train_size=50)
    batches = list(data.batches("train", 1))
    assert sum(sum(targets["counts"]) for _, targets in batches) == sum(len(t["labels"]) for _, t in batches) > 500
    for (images, targets), (again, others) in zip(
        batches, bccd(batch_size=20, train_size=50, num_workers=1).batches("train", 1), strict=True
    ):
        assert images.equal(again)
        assert targets["boxes"].equal(others["boxes"])
        assert targets["ids"] == others["ids"]
        assert images.shape[1:] == (3, 64, 96)
        assert (images[:, :, 60:] == 0).all()
        assert (images[:, :, :, 80:] == 0).all()
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert targets["boxes"].max() <= 80
        assert targets["original_sizes"] == [(480, 640)] * len(images)
    assert sum(len(targets["ids"]) for _, targets in data.batches("val")) == 87


def test_masks_line_up_with_their_images(real_data, tmp_path):
    with zipfile.ZipFile(real_data / "camvid-small.zip") as file:
        file.extractall(tmp_path)
    names = [str(number) for number in range(11)]
    options = {"void": [11], "image_size": 96, "batch_size": 40, "mean": (0.4, 0.4, 0.4), "std": (0.3, 0.3, 0.3)}
    data = SegmentationFolder(tmp_path, names, **options)
    images, masks = next(data.batches("train", 0))
    assert images.shape[2:] == masks.shape[1:] == (96, 96)
    assert set(masks.unique().tolist()) <= {*range(11), 255}
    assert len({*data.ids(test=True)}) == 233
