"""Photos with boxes or masks through their DataModules, on real sets and on miniature ones in the original layouts."""

from __future__ import annotations

import json
import shutil
import zipfile

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image

from datamodules import ADE20K, COCODetection, SegmentationFolder, VOCDetection, VOCSegmentation
from datamodules.pipeline import scenes


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


STATISTICS = {"mean": (0.2, 0.2, 0.2), "std": (0.2, 0.2, 0.2)}
PARTS = {"train": ["VOC2007/train"], "val": ["VOC2007/val"], "test": ["VOC2007/test"]}


def equal(one, other):
    """Whether two parts of batches are, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple) and one and isinstance(one[0], torch.Tensor | dict | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def test_coco_has_its_ids_and_neither_trains_on_crowds_nor_forgets_them(coco_tree):
    data = COCODetection(
        coco_tree, test="test2017", image_size=48, max_size=64, flip=False, batch_size=12, **STATISTICS
    )
    assert (data.class_names, data.category_ids, data.num_classes) == (["red", "green"], [3, 7], 2)
    assert data.report()["crowds"] == 1
    ((images, targets),) = data.batches("train", 0)
    assert sorted(targets["ids"]) == list(range(100, 112))
    assert targets["counts"] == [1] * 12  # the crowd of photo 100 is not among them
    assert not targets["difficult"].any()
    for position, (number, box, label) in enumerate(
        zip(targets["ids"], targets["boxes"].int(), targets["labels"].tolist(), strict=True)
    ):
        assert label == number % 2
        left, top, right, bottom = box.tolist()
        inside = images[position, label, top + 2 : bottom - 2, left + 2 : right - 2]
        assert inside.min() > 2.5 > images[position, 1 - label].max()
    ((_, tested),) = data.batches("test")
    assert tested["ids"] == [117, 118, 119]
    assert tested["original_sizes"] == [(48, 64)] * 3


@pytest.mark.parametrize("part", ["val", "test"])
def test_coco_parts_with_other_categories_are_refused(coco_tree, tmp_path, part):
    """A label is a position among the categories, and would be another class in each part."""
    tree = shutil.copytree(coco_tree, tmp_path / "coco")
    path = tree / "annotations" / f"instances_{part}2017.json"
    content = json.loads(path.read_text())
    content["categories"].append({"id": 1, "name": "blue"})
    path.write_text(json.dumps(content))
    message = rf"instances_{part}2017\.json has other categories than .*instances_train2017\.json; list the same ones"
    with pytest.raises(MisconfigurationException, match=message):
        COCODetection(tree, test="test2017", batch_size=4).test_images()


def test_masks_follow_their_boxes_through_scale_and_mirror(coco_tree):
    """The photo says where its square is; and whoever asks for no masks gets none."""
    pytest.importorskip("pycocotools", reason="pycocotools, of the extra detection, is not installed")
    options = {"test": "test2017", "image_size": 48, "max_size": 128, "train_sizes": [32, 48, 67], **STATISTICS}
    plain, data = (
        COCODetection(coco_tree, masks=masks, num_workers=int(masks), batch_size=5, **options)
        for masks in (False, True)
    )
    assert plain.fingerprint(test=False) != data.fingerprint(test=False)
    heights = set()
    for epoch in range(3):
        pairs = zip(data.batches("train", epoch), plain.batches("train", epoch), strict=True)
        for (images, targets), (same_images, same_targets) in pairs:
            masks, run_lengths = targets.pop("masks"), targets.pop("run_lengths")
            assert equal((images, targets), (same_images, same_targets))
            assert masks.dtype == torch.uint8
            # One object a photo, as the crowd is not trained on.
            assert masks.shape == (len(run_lengths), *images.shape[2:]) == (len(images), *images.shape[2:])
            columns = (targets[name] for name in ("sizes", "labels", "boxes"))
            for image, mask, (height, _), label, box in zip(images, masks, *columns, strict=True):
                heights.add(height)
                rows, columns = mask.nonzero().unbind(1)
                edges = torch.stack((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
                assert (edges - box).abs().max() <= 1
                assert ((image[label] > 2) != mask.bool()).sum() <= mask.sum() / 5  # but for blurred edges
    assert heights == {32, 48, 67}
    ((_, tested),) = data.batches("test")
    assert len(tested["run_lengths"]) == 3
    assert "masks" not in tested


def test_the_palette_masks_of_voc_are_read_as_indices(voc_tree):
    root = voc_tree / "VOCdevkit" / "VOC2007"
    lists = {"test": "ImageSets/Segmentation/test.txt", "val": "ImageSets/Segmentation/val.txt"}
    data = VOCSegmentation(root, image_size=48, batch_size=12, size_divisor=1, **lists, **STATISTICS)
    assert (data.num_classes, data.class_names[0], data.held_out) == (21, "background", 5)
    ((_, masks),) = data.batches("test")
    assert set(masks.unique().tolist()) == {0, 1, 2, 255}
    assert (masks[:, :2] == 255).all()
    assert data.ids(test=True) == ["000017", "000018", "000019"]


def test_class_0_of_ade20k_is_void_and_its_names_come_from_its_table(tmp_path):
    for part, count in (("training", 3), ("validation", 1)):
        for number in range(count):
            name = f"ADE_{part[:5]}_{number:08}"
            mask = torch.full((40, 60), number, dtype=torch.uint8)
            mask[:, 30:] = 150
            for folder, kind in (("images", "jpg"), ("annotations", "png")):
                (tmp_path / folder / part).mkdir(parents=True, exist_ok=True)
                image = Image.fromarray(mask.numpy())
                (image.convert("RGB") if kind == "jpg" else image).save(tmp_path / folder / part / f"{name}.{kind}")
    options = {"image_size": 32, "batch_size": 3, **STATISTICS}
    assert ADE20K(tmp_path, **options).class_names[::149] == ["1", "150"]
    rows = ["Idx\tRatio\tTrain\tVal\tName", *(f"{n}\t0\t0\t0\tclass {n}, other name" for n in range(1, 151))]
    (tmp_path / "objectInfo150.txt").write_text("\n".join(rows) + "\n")
    data = ADE20K(tmp_path, **options)
    assert (data.num_classes, data.class_names[149]) == (150, "class 150")
    assert [len(part) for part in data.split] == [3, 0]
    ((images, masks),) = data.batches("train")
    assert images.shape == (3, 3, 32, 32)
    assert {0, 149} <= set(masks.unique().tolist()) <= {0, 1, 149, 255}
    ((_, validated),) = data.batches("test")
    assert (validated[0, :40, :30] == 255).all()
    assert (validated[0, :40, 30:60] == 149).all()


class Records(L.LightningModule):
    """Trains a number, and remembers the batches."""

    def __init__(self):
        super().__init__()
        self.number = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch)
        return self.number

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(data, folder, ckpt_path=None, **options):
    module = Records()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = L.Trainer(default_root_dir=folder, use_distributed_sampler=False, **(quiet | options))
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return module.seen


def voc(voc_tree, street_tree, **options):
    train_sizes = {"image_size": 48, "max_size": 96, "train_sizes": [32, 48, 64]}
    return VOCDetection(voc_tree, **PARTS, **train_sizes, batch_size=5, **STATISTICS, **options)


def streets(voc_tree, street_tree, **options):
    names = ["dark", "red", "green"]
    return SegmentationFolder(street_tree, names, image_size=32, base_size=64, batch_size=5, **STATISTICS, **options)


@pytest.mark.parametrize("build", [voc, streets])
def test_a_run_stopped_in_mid_epoch_goes_on_with_the_very_next_batch_whoever_makes_it(
    build, voc_tree, street_tree, tmp_path
):
    whole = fit(build(voc_tree, street_tree), tmp_path, max_epochs=2)
    assert len(whole) == 6
    saving = ModelCheckpoint(tmp_path, filename="middle", save_last=False, every_n_train_steps=2)
    begun = fit(build(voc_tree, street_tree), tmp_path, max_steps=2, callbacks=[saving])
    data = build(voc_tree, street_tree, num_workers=2)
    resumed = fit(data, tmp_path, tmp_path / "middle.ckpt", max_epochs=2)
    assert equal(begun + resumed, whole)


@pytest.mark.parametrize("build", [voc, streets])
def test_in_bf16_true_images_are_bfloat16_and_boxes_are_not(build, voc_tree, street_tree, tmp_path):
    full = fit(build(voc_tree, street_tree), tmp_path, max_steps=1)
    half = fit(build(voc_tree, street_tree), tmp_path, max_steps=1, precision="bf16-true")
    ((images, targets),), ((rounded, others),) = full, half
    assert rounded.dtype == torch.bfloat16
    assert torch.equal(images.bfloat16(), rounded)
    assert equal(targets, others)


def test_statistics_are_of_the_images_that_are_trained_on(street_tree, monkeypatch):
    data, listed = SegmentationFolder(street_tree, ["dark", "red", "green"], image_size=32, batch_size=4), []

    def cached(kind, made_from, build):
        listed.append(made_from[1])
        return {"mean": np.full(3, 0.5), "std": np.full(3, 0.5)}

    monkeypatch.setattr(scenes, "cached", cached)
    assert data.mean == (0.5,) * 3
    assert listed == [data.files(test=False)[1][: -data.held_out]]
