"""The work on a batch after its transfer, with everything on a CUDA device that need not exist."""

import pytest
import torch

from datamodules import Digits, Photos
from datamodules.pipeline import augment, windows


@pytest.fixture(autouse=True)
def _nothing_cached():
    """Constants that were put on the device of one test are of no use to another."""
    kept = (augment.affine, windows.within)
    for constants in kept:
        constants.cache_clear()
    yield
    for constants in kept:
        constants.cache_clear()


def assert_finished_on_device(data, fake_cuda):
    data.setup("fit")
    assert data.mean
    assert data.std  # read from the images, once
    raw = next(iter(data.train_dataloader()))
    mode, move = fake_cuda
    with mode:
        raw = move(raw)
        assert raw.images.device.type == "cuda"
        for number in range(4):
            images, targets = data.on_after_batch_transfer(raw._replace(number=number), 0)
            assert images.device.type == targets.device.type == "cuda"
            assert images.dtype == targets.dtype == torch.float32
            assert images.is_contiguous(memory_format=torch.channels_last)
        images, targets = data.on_after_batch_transfer(raw._replace(draws=None, epoch=None), 0)
        assert images.device.type == "cuda"
        assert targets.dtype == torch.int64


MIXED = {"batch_size": 4, "erasing": 0.5, "mixup_alpha": 1.0, "cutmix_alpha": 1.0}


@pytest.mark.parametrize("padding", ["zero", "reflect"])
def test_small_images_wait_for_no_device(fake_cuda, padding):
    data = Digits(image_size=8, flip=True, padding=padding, cutout=4, **MIXED)
    assert_finished_on_device(data, fake_cuda)


def test_photos_wait_for_no_device(folder, fake_cuda):
    data = Photos(str(folder), image_size=16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2), num_workers=0, **MIXED)
    assert_finished_on_device(data, fake_cuda)


def test_what_reads_a_value_back_is_caught(fake_cuda):
    mode, move = fake_cuda
    values = torch.ones(2)
    with mode, pytest.raises(torch._subclasses.fake_tensor.DataDependentOutputException):
        move(values).max().item()
