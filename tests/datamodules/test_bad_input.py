"""Every bad input is decoded right, or named in one sentence with the file's path."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image

from datamodules import CIFAR10, SVHN, FashionMNIST, Photos, SmallImages
from datamodules.pipeline.decode import DecodeError, decode, image_size, read_bytes

RNG = np.random.default_rng(0)
RGB = np.repeat(np.repeat(RNG.integers(0, 256, (4, 5, 3), dtype=np.uint8), 16, 0), 16, 1)  # 64×80, smooth for JPEG


def _truncated(path):
    Image.fromarray(RGB).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-100])


def _truncated_png(path):
    Image.fromarray(RGB).save(path, "PNG")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


BROKEN = {
    "truncated.jpg": (_truncated, "is not a whole image: Premature end of JPEG file"),
    "truncated.png": (_truncated_png, "is not a whole image: .*truncated"),
    "text.jpg": (lambda path: path.write_text("no image"), "is not a whole image: its format is unknown"),
    "empty.jpg": (lambda path: path.write_bytes(b""), "is empty"),
    "header.jpg": (lambda path: path.write_bytes(b"\xff\xd8\xff\xe0junk"), "is not a whole image"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("kind", [SmallImages, Photos])
def test_broken_files_are_named(folder, kind, name):
    make, message = BROKEN[name]
    path = folder / "train" / "cat" / name
    make(path)
    with pytest.raises(DecodeError, match=f"{path} {message}") as caught:
        list(kind(str(folder), image_size=32, num_workers=0, val_fraction=0).train_dataloader())
    assert str(caught.value).count("\n") == 0
    assert str(caught.value).endswith("replace or remove it.")


def test_a_broken_file_in_a_worker_is_named_too(folder):
    path = folder / "train" / "cat" / "text.jpg"
    path.write_text("no image")
    with pytest.raises(DecodeError, match=str(path)):
        list(
            Photos(
                str(folder), image_size=32, num_workers=1, val_fraction=0, mean=(0, 0, 0), std=(1, 1, 1)
            ).train_dataloader()
        )


def test_broken_files_are_skipped_and_counted_on_request(folder):
    for name in ("text.jpg", "empty.jpg"):
        BROKEN[name][0](folder / "train" / "dog" / name)
    data = Photos(str(folder), image_size=32, num_workers=0, val_fraction=0, batch_size=13, corrupt="skip")
    data.setup("fit")
    batches = [data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader()]
    assert sum(len(images) for images, _ in batches) == 24
    assert all(len(images) == len(targets) for images, targets in batches)
    assert torch.cat([targets for _, targets in batches]).bincount().tolist() == [12, 12]
    assert data.report()["corrupt_images"] == 2
    assert data.report()["corrupt_files"] == [
        str(folder / "train" / "dog" / name) for name in ("empty.jpg", "text.jpg")
    ]


def _save(mode: str, kind: str, **options):
    def save(path):
        image = Image.fromarray(RGB)
        if mode == "I;16":
            grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
            image = Image.fromarray(grey)
        else:
            image = image.convert(mode)
        image.save(path, kind, **options)

    return save


def _grey(pixels):
    return np.repeat(np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None], 3, 2)


GOOD = {
    "png named.jpg": (_save("RGB", "PNG"), RGB, 0),
    "cmyk.jpg": (_save("CMYK", "JPEG", quality=95), RGB, 20),
    "grey.jpg": (_save("L", "JPEG", quality=95), _grey(RGB), 12),
    "grey.png": (_save("L", "PNG"), _grey(RGB), 0),
    "16-bit.png": (_save("I;16", "PNG"), _grey(RGB), 0),
    "palette.png": (_save("P", "PNG"), np.asarray(Image.fromarray(RGB).convert("P").convert("RGB")), 0),
    "alpha.png": (_save("RGBA", "PNG"), RGB, 0),
    "bitmap.png": (_save("1", "PNG"), np.asarray(Image.fromarray(RGB).convert("1").convert("RGB")), 0),
    "progressive.jpg": (_save("RGB", "JPEG", quality=95, subsampling=0, progressive=True), RGB, 12),
    "photo.webp": (_save("RGB", "WEBP", lossless=True), RGB, 0),
    "Straße 数据 é.png": (_save("RGB", "PNG"), RGB, 0),
}


@pytest.mark.parametrize("name", GOOD)
def test_unusual_files_are_decoded_right(tmp_path, name):
    save, expected, tolerance = GOOD[name]
    save(tmp_path / name)
    data = read_bytes(str(tmp_path / name))
    image = decode(data, name)
    assert image.shape == (64, 80, 3) == (*image_size(data, name), 3)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - expected).max() <= tolerance


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    image = decode(read_bytes(str(tmp_path / "a.gif")), "a.gif")
    assert image.shape == (10, 20, 3)
    assert (image == [255, 0, 0]).all()


def test_non_ascii_names_of_folders(folder):
    os.rename(folder / "train" / "cat", folder / "train" / "Kätzchen 猫")
    os.rename(folder / "test" / "cat", folder / "test" / "Kätzchen 猫")
    data = Photos(str(folder), image_size=32, num_workers=0)
    assert data.class_names == ["Kätzchen 猫", "dog"]
    assert len(list(data.test_dataloader())) == 1


@pytest.mark.parametrize("kind", [SmallImages, Photos])
def test_folders_that_cannot_be_used_are_named_at_construction(folder, kind):
    with pytest.raises(FileNotFoundError, match="nowhere is no folder; give the folder"):
        kind(str(folder / "nowhere"))
    (folder / "train" / "emu").mkdir()
    (folder / "train" / "emu" / "notes.txt").write_text("passed over")
    with pytest.raises(MisconfigurationException, match=f"{folder / 'train' / 'emu'} has no image in it"):
        kind(str(folder))
    shutil.rmtree(folder / "train")
    (folder / "train").mkdir()
    with pytest.raises(MisconfigurationException, match=f"{folder / 'train'} has no class folder"):
        kind(str(folder))


@pytest.mark.parametrize("kind", [SmallImages, Photos])
def test_a_class_that_training_does_not_have_is_named(folder, kind):
    os.rename(folder / "test" / "dog", folder / "test" / "wolf")
    with pytest.raises(MisconfigurationException, match=r"test/wolf is a class that the training images do not have"):
        kind(str(folder), image_size=32).setup("test")


@pytest.mark.parametrize("kind", [SmallImages, Photos])
def test_a_missing_test_part_is_named(folder, kind):
    data = kind(str(folder / "train"), image_size=32)
    data.setup("fit")
    with pytest.raises(MisconfigurationException, match="has no test part"):
        data.setup("test")


def test_a_file_that_may_not_be_read_is_named(folder, monkeypatch):
    path = folder / "train" / "cat" / "00.jpg"
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads everything
        monkeypatch.setattr("datamodules.photos.read_bytes", _refuse)
    with pytest.raises(PermissionError, match=r"00\.jpg"):
        list(Photos(str(folder), num_workers=0, val_fraction=0, mean=(0, 0, 0), std=(1, 1, 1)).train_dataloader())


def _refuse(path: str) -> bytes:
    if path.endswith("cat/00.jpg"):
        raise PermissionError(13, "Permission denied", path)
    return read_bytes(path)


def test_small_images_of_different_sizes_are_named(folder):
    Image.fromarray(RGB).save(folder / "train" / "dog" / "large.png")
    for path in folder.rglob("*.jpg"):
        Image.fromarray(RGB[:30, :30]).save(path)
    with pytest.raises(MisconfigurationException, match=r"dog/large.png is 80×64 pixels, others are 30×30"):
        SmallImages(str(folder)).setup("fit")
    SmallImages(str(folder), image_size=30).setup("fit")


def test_a_label_beyond_the_class_count_is_refused():
    class Wrong(FashionMNIST):
        def read(self, test):
            return torch.zeros(20, 28, 28, 1, dtype=torch.uint8), torch.arange(20) % 11

    with pytest.raises(MisconfigurationException, match="labels run from 0 to 10, but there are 10 classes"):
        Wrong().setup("fit")


@pytest.mark.parametrize("kind", [CIFAR10, SVHN, FashionMNIST])
def test_absent_originals_are_named(tmp_path, kind):
    with pytest.raises(MisconfigurationException, match=f"{tmp_path}.*download=true"):
        kind(root=str(tmp_path)).setup("fit")


def test_a_broken_fashion_mnist_is_named(tmp_path):
    for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
        (tmp_path / name).write_bytes(b"not gzip")
    with pytest.raises(OSError, match=r"train-images-idx3-ubyte.gz is broken"):
        FashionMNIST(root=str(tmp_path)).setup("fit")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"mixup_alpha": -1.0}, "mixup_alpha is -1.0"),
        ({"shift": 28}, "shift is 28"),
        ({"on_device": True, "num_workers": 2}, "set num_workers to 0"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(MisconfigurationException, match=message):
        FashionMNIST(**settings)


def test_a_folder_and_a_pipe_that_are_named_like_a_photo_stop_nothing(folder):
    (folder / "train" / "cat" / "x.jpg").mkdir()
    os.mkfifo(folder / "train" / "cat" / "pipe.jpg")
    data = Photos(str(folder), image_size=8, num_workers=0, val_fraction=0, corrupt="skip")
    assert sum(len(batch.images) for batch in data.train_dataloader()) == 24


def test_a_root_that_is_not_utf_8(folder):
    root = os.fsdecode(os.fsencode(folder.parent) + b"/\xff\xfe")
    os.rename(folder, root)
    os.rename(f"{root}/train/cat/00.jpg", os.fsdecode(os.fsencode(root) + b"/train/cat/\xe9.jpg"))
    for kind in (SmallImages, Photos):
        data = kind(root, image_size=8, num_workers=0)
        data.setup("fit")
        assert len(next(iter(data.train_dataloader())).images) == 22
        assert len(data.mean) == 3
        assert data.report()["train_images"] == 22


@pytest.mark.parametrize("kind", [SmallImages, Photos])
def test_a_channel_without_variance_is_named(folder, kind):
    for path in folder.rglob("*.jpg"):
        pixels = np.asarray(Image.open(path)).copy()
        pixels[..., 2] = 64
        Image.fromarray(pixels).save(path, "PNG")
    options = {"image_size": 16, "num_workers": 0}
    with pytest.raises(
        MisconfigurationException, match=r"channel 2 of the training images is 64 everywhere.*data\.std"
    ):
        _ = kind(str(folder), **options).std
    assert kind(str(folder), **options, mean=(0, 0, 0), std=(1, 1, 1)).std == (1, 1, 1)
    with pytest.raises(MisconfigurationException, match=r"std is \(1, 1, 0\); give numbers above 0"):
        kind(str(folder), **options, std=(1, 1, 0))


def test_copies_share_the_cache_and_a_changed_image_is_seen(folder, cache, monkeypatch):
    def images(root):
        return SmallImages(str(root), image_size=8).part(test=False)[0]

    first = images(folder)
    shutil.copytree(folder, folder.parent / "copy", copy_function=shutil.copyfile)  # with times of its own
    monkeypatch.setattr(SmallImages, "_decode", None)
    assert torch.equal(images(folder.parent / "copy"), first)
    assert len(list(cache.iterdir())) == 1
    monkeypatch.undo()
    os.environ["FATHOM_CACHE"] = str(cache)
    path = folder / "train" / "cat" / "00.jpg"
    data = bytearray(path.read_bytes())
    data[-40:-20] = bytes(20)  # of the same size
    path.write_bytes(data)
    assert not torch.equal(images(folder), first)


@pytest.mark.parametrize("kind", [SmallImages, Photos])
def test_a_validation_folder_is_used_and_reported(folder, kind):
    shutil.copytree(folder / "test", folder / "val")
    data = kind(str(folder), image_size=8, num_workers=0, batch_size=6)
    data.setup("fit")
    report = data.report()
    assert (report["train_images"], report["val_images"]) == (24, 6)
    assert report["folders"] == {"train": "train/", "val": "val/", "test": "test/"}
    (val,), (test,) = list(data.batches("val")), list(data.batches("test"))
    assert torch.equal(val[0], test[0])  # they are copies
