"""The data sets themselves, and the contract that all of them keep."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from datamodules import CIFAR10, Digits, FashionMNIST, Photos, SmallImages
from datamodules.photos import _ERASING, _FLIP, PHOTO_DRAWS
from datamodules.pipeline.batches import training_batches
from datamodules.pipeline.crops import DRAWS
from datamodules.pipeline.image_data import RawBatch
from datamodules.pipeline.in_memory import channel_statistics

FASHION = Path("/usr/share/datasets/fashion-mnist")


def _data_set(kind, folder):
    if kind is FashionMNIST and not FASHION.is_dir():
        pytest.skip(f"{FASHION} is absent: apt-get install dataset-fashion-mnist")
    options = {Digits: {}, FashionMNIST: {"root": str(FASHION)}}.get(kind, {"root": str(folder), "image_size": 24})
    return kind(batch_size=10, num_workers=0, **options)


@pytest.mark.parametrize("kind", [Digits, FashionMNIST, SmallImages, Photos])
def test_every_data_set_keeps_the_contract(folder, kind):
    data = _data_set(kind, folder)
    assert len(data.class_names) == data.num_classes
    assert len(data.mean) == len(data.std) == data.in_channels
    for stage, loader in (("fit", "train_dataloader"), ("fit", "val_dataloader"), ("test", "test_dataloader")):
        data.setup(stage)
        images, targets = data.on_after_batch_transfer(next(iter(getattr(data, loader)())), 0)
        assert images.shape[1:] == (data.in_channels, data.image_size, data.image_size)
        assert images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert targets.dtype == torch.int64
        assert len(images) == len(targets)
        assert 0 <= targets.min() <= targets.max() < data.num_classes


def test_digits_parts_are_disjoint_stratified_and_normalised():
    data = Digits()
    assert [len(part) for part in data.split] == [1294, 144]
    train, _ = data.part(test=False)
    test, labels = data.part(test=True)
    assert len(train) + len(test) == 1797
    assert labels.bincount().min() >= 34
    overlap = {image.numpy().tobytes() for image in train} & {image.numpy().tobytes() for image in test}
    assert not overlap
    images = torch.cat([data.on_after_batch_transfer(batch, 0)[0] for batch in data.val_dataloader()])
    assert abs(float(images.mean())) < 0.05
    assert abs(float(images.std()) - 1) < 0.05


def test_fashion_mnist_has_the_published_statistics(folder):
    data = _data_set(FashionMNIST, folder)
    mean, std = channel_statistics(data.part(test=False)[0])
    assert mean == pytest.approx(data.mean, abs=1e-4)
    assert std == pytest.approx(data.std, abs=1e-4)
    assert len(data.part(test=True)[0]) == 10_000


def test_statistics_are_exact(folder):
    images = torch.randint(256, (50, 7, 5, 3), dtype=torch.uint8)
    mean, std = channel_statistics(images)
    scaled = images.double().div(255).flatten(0, 2)
    assert mean == pytest.approx(scaled.mean(0).tolist(), abs=1e-12)
    assert std == pytest.approx(scaled.std(0, correction=0).tolist(), abs=1e-12)


def test_small_images_are_decoded_once(cifar, monkeypatch):
    first = SmallImages(str(cifar))
    assert first.image_size == 32
    assert first.num_classes == 10
    images, labels = first.part(test=False)
    assert labels.bincount().tolist() == [60] * 10
    assert images.shape == (600, 32, 32, 3)
    again = SmallImages(str(cifar))
    monkeypatch.setattr(again, "_decode", None)
    assert torch.equal(again.part(test=False)[0], images)


def test_the_test_part_is_not_read_by_fit(folder, monkeypatch):
    data = SmallImages(str(folder), image_size=16)
    read = data.read
    parts = []
    monkeypatch.setattr(data, "read", lambda test: parts.append(test) or read(test))
    data.setup("fit")
    list(data.train_dataloader())
    list(data.val_dataloader())
    assert parts == [False]


def test_the_whole_set_on_the_device_gives_the_same_batches():
    """Also from the middle of an epoch on, and mixed by both ways and not at all."""
    mixing = {"mixup_alpha": 0.2, "cutmix_alpha": 1.0, "mix_prob": 0.7}

    def epochs(**options):
        data = Digits(erasing=0.5, padding="reflect", batch_size=100, **mixing, **options)
        data.load_state_dict({"epoch": 1, "offset": 3})
        middle = [data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader()]
        return [*middle, *data.batches("train", 2), *data.batches("val")]

    on_host, on_device = epochs(), epochs(on_device=True)
    assert {targets.ndim for _, targets in on_host} == {1, 2}
    for batch, same in zip(on_host, on_device, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch, same, strict=True))


def test_nothing_is_drawn_for_erasing_where_nothing_is_erased():
    few, many = (next(iter(Digits(erasing=erasing).train_dataloader())).draws for erasing in (0, 0.5))
    assert few.shape[1] < many.shape[1]
    assert torch.equal(few, many[:, : few.shape[1]])


class _Noise(CIFAR10):
    """Images of noise that are darker on the left."""

    def read(self, test):
        rng = torch.Generator().manual_seed(int(test))
        images = torch.randint(256, (200, 32, 32, 3), generator=rng) * torch.linspace(0.3, 1, 32)[:, None]
        return images.to(torch.uint8), torch.arange(200) % 10


def test_cifar_is_standardised_by_pixel_as_the_authors_of_stochastic_depth_do():
    """Their order: the mean image is subtracted and one deviation divided by, then zeros come in over the border."""
    data = _Noise(pixel_mean=True, batch_size=20, seed=3)
    plain = _Noise(batch_size=20, seed=3, shift=0, flip=False)
    # Of the published figures of the channels: the mean variance, and the variance of the means.
    deviation = (
        (0.2470**2 + 0.2435**2 + 0.2616**2) / 3 + (0.4914**2 + 0.4822**2 + 0.4465**2) / 3 - 0.4733666667**2
    ) ** 0.5
    assert data.std == pytest.approx([deviation] * 3, rel=1e-5)
    assert plain.std == (0.2470, 0.2435, 0.2616)
    pixels, _ = data.read(test=False)
    train, val = data.split
    mean_image = pixels[train].double().mean(0)
    val_images = torch.cat([data.on_after_batch_transfer(raw, 0)[0] for raw in data.val_dataloader()])
    expected = (pixels[val].double() - mean_image) / (255 * deviation)
    torch.testing.assert_close(val_images.permute(0, 2, 3, 1).double(), expected, rtol=0, atol=1e-4)

    raw = next(iter(data.train_dataloader()))
    sources = pixels[next(training_batches(train, 20, seed=3, epoch=0)).indices]
    images = data.on_after_batch_transfer(raw, 0)[0].permute(0, 2, 3, 1).double()
    for image, source, draws in zip(images, sources, raw.draws, strict=True):
        padded = torch.zeros(40, 40, 3, dtype=torch.float64)
        padded[4:36, 4:36] = (source.double() - mean_image) / (255 * deviation)
        top, left = (int(9 * u) for u in draws[:2])
        crop = padded[top : top + 32, left : left + 32]
        torch.testing.assert_close(image, crop.flip(1) if draws[2] < 0.5 else crop, rtol=0, atol=1e-4)


def test_each_augmentation_has_draws_of_its_own():
    data = Digits(image_size=8, shift=0, flip=False, cutout=3, erasing=1.0)
    draws = torch.rand(64, data._draws)
    images = torch.randint(256, (64, 8, 8, 1), dtype=torch.uint8)

    def augmented(draws):
        return data.augment_and_normalise(RawBatch(images, None, draws, 0, 0))

    others = draws.clone()
    others[:, :3] = torch.rand(64, 3)
    assert augmented(draws).equal(augmented(others))
    data.cutout = 0
    others[:, :5] = torch.rand(64, 5)
    assert augmented(draws).equal(augmented(others))


def test_crop_mirror_and_erasing_have_draws_of_their_own():
    columns = range(PHOTO_DRAWS)
    assert [*columns[:DRAWS], _FLIP, *columns[_ERASING]] == list(columns)
