"""Which files are the data set, whatever else lies in its folders."""

from __future__ import annotations

import contextlib
import os
import pickle
import time

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.pipeline.folder import ImageFolder, Paths
from datamodules.pipeline.splits import split


def put(root, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


TRAIN = [f"train/{name}/{i}.jpg" for name in ("cat", "dog") for i in range(3)]


def test_images_are_found_at_any_depth_with_the_label_of_the_first_folder(tmp_path):
    put(tmp_path, "train/cat/b.jpg", "train/cat/2019 holiday/a.jpg", "train/dog/images/dog/c.JPEG", "train/dog/d.jfif")
    listing = ImageFolder(tmp_path).training
    assert list(listing.files) == [
        "train/cat/2019 holiday/a.jpg",
        "train/cat/b.jpg",
        "train/dog/d.jfif",
        "train/dog/images/dog/c.JPEG",
    ]
    assert listing.labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("others", "val", "test"),
    [
        ([], "0.1 of train/", "none"),
        (["val/cat/1.jpg"], "0.1 of train/", "val/"),
        (["test/cat/1.jpg"], "0.1 of train/", "test/"),
        (["val/cat/1.jpg", "test/dog/2.jpg"], "val/", "test/"),
        (["val/cat/1.jpg", "test/1.jpg", "test/2.jpg"], "0.1 of train/", "val/"),  # ILSVRC as shipped
        (
            ["val/images/1.JPEG", "val/val_annotations.txt", "test/images/1.JPEG"],
            "0.1 of train/",
            "none",
        ),  # Tiny-ImageNet
    ],
)
def test_which_folder_is_which_part(tmp_path, others, val, test):
    put(tmp_path, *TRAIN, *others)
    folder = ImageFolder(tmp_path)
    assert folder.folders(0.1) == {"train": "train/", "val": val, "test": test}
    assert folder.folders(0)["val"] == "none"
    assert list(folder.only_training.files) == TRAIN
    assert folder.held_out == (val == "val/")
    if test == "none":
        with pytest.raises(MisconfigurationException, match="has no test part"):
            folder.test()
    else:
        assert list(folder.test().files) == [
            name for name in others if name.startswith(f"{test}") and name.count("/") == 2
        ]


def test_a_validation_folder_is_the_whole_validation_part():
    labels = torch.tensor([0, 1] * 10 + [1, 0, 0])
    for fraction in (0.1, 0.5):
        train, val = split(labels, fraction, held_out=3)
        assert train.tolist() == list(range(20))
        assert val.tolist() == [20, 21, 22]
    train, val = split(labels, 0.1, train_size=4, held_out=3)
    assert labels[train].bincount().tolist() == [2, 2]
    assert train.max() < 20
    assert split(labels, 0.0, held_out=3)[1].tolist() == []


def test_what_is_no_image_is_passed_over(tmp_path):
    put(tmp_path, *TRAIN, "train/cat/.DS_Store", "train/cat/._0.jpg", "train/cat/Thumbs.db", "train/__MACOSX/cat/0.jpg")
    put(tmp_path, "train/.hidden/0.jpg", "train/dog/__MACOSX/0.jpg", "train/dog/x.jpg/Thumbs.db")
    os.mkfifo(tmp_path / "train" / "cat" / "pipe.jpg")
    os.symlink("/dev/zero", tmp_path / "train" / "cat" / "zero.jpg")
    os.symlink("..", tmp_path / "train" / "cat" / "round")
    listing = ImageFolder(tmp_path).training
    assert list(listing.files) == TRAIN
    assert listing.class_names == ["cat", "dog"]


def test_links_are_followed_and_one_that_leads_nowhere_is_named(tmp_path):
    put(tmp_path, *TRAIN, "elsewhere/a.jpg", "elsewhere/deeper/b.jpg")
    os.symlink(tmp_path / "elsewhere", tmp_path / "train" / "emu")
    os.symlink(tmp_path / "elsewhere", tmp_path / "train" / "dog" / "more")
    files = list(ImageFolder(tmp_path).training.files)
    assert files[-4:] == [
        "train/dog/more/a.jpg",
        "train/dog/more/deeper/b.jpg",
        "train/emu/a.jpg",
        "train/emu/deeper/b.jpg",
    ]
    os.symlink("gone", tmp_path / "train" / "cat" / "x.jpg")
    with pytest.raises(FileNotFoundError, match=r"x\.jpg"):
        ImageFolder(tmp_path)


def test_a_listing_looks_at_no_file_until_its_stamps_are_asked_for(tmp_path, monkeypatch):
    put(tmp_path, *TRAIN)
    looked_at, scandir = [], os.scandir

    class Entry:
        def __init__(self, entry):
            self._entry = entry

        def __getattr__(self, name):
            if name == "stat":
                looked_at.append(self._entry.name)
            return getattr(self._entry, name)

    @contextlib.contextmanager
    def entries(path):
        with scandir(path) as found:
            yield map(Entry, found)

    monkeypatch.setattr(os, "scandir", entries)
    listing = ImageFolder(tmp_path).training
    assert not looked_at
    assert listing.stamps() == ([len(file) for file in TRAIN], [(tmp_path / file).stat().st_mtime_ns for file in TRAIN])


def test_paths_are_a_sequence_of_texts():
    texts = ["a/1.png", "ä/😀.jpg", os.fsdecode(b"b/\xff.jpg"), "c.gif"]
    paths = Paths.joined([Paths.of(texts[:1]), Paths.of([]), Paths.of(texts[1:])])
    assert list(paths) == [paths[i] for i in range(4)] == paths[:] == texts
    assert paths[-1] == "c.gif"
    assert paths[::2] == texts[::2]
    with pytest.raises(IndexError):
        paths[4]
    for copy in (pickle.loads(pickle.dumps(paths)), Paths.of(paths)):
        assert list(copy) == texts
    assert list(Paths.of([])) == []


def test_paths_take_half_the_memory_of_texts():
    """An ImageNet's are some 33 letters long."""
    paths = Paths.of(f"train/n{i // 100:08}/n{i // 100:08}_{i}.JPEG" for i in range(1000))
    tensors = [value for value in vars(paths).values() if isinstance(value, torch.Tensor)]
    assert sum(tensor.untyped_storage().nbytes() for tensor in tensors) < 1000 * 50
    assert len(vars(paths)) == len(tensors)  # nothing else grows with them, and worker processes share tensors


def test_many_classes_are_listed_in_linear_time(tmp_path):
    def seconds(classes: int) -> float:
        root = tmp_path / str(classes)
        for i in range(classes):
            (root / f"{i:05}").mkdir(parents=True)
            (root / f"{i:05}" / "0.png").touch()
        begun = time.process_time()
        assert ImageFolder(root).training.labels.tolist() == list(range(classes))
        return time.process_time() - begun

    assert seconds(4000) < 10 * seconds(1000) + 0.1
