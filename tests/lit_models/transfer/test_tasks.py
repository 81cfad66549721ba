"""Detector and Segmenter under the real Trainer, on images drawn by the test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_models import (
    FCN,
    CIFARResNet,
    Detector,
    FasterRCNN,
    MaskRCNN,
    NetworkError,
    RetinaNet,
    Segmenter,
    TimmBackbone,
    VanillaNet,
    load_checkpoint,
)
from lit_models.interfaces import BATCH_NORMS, LogitsWithAux
from lit_models.tasks.optimization import make_optimizer
from lit_models.tasks.segmentation_scores import VOID
from lit_models.transfer.faster_rcnn import Neck
from lit_models.transfer.trunk import Trunk


def scene(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A dark image (3, 64, 96) with one or two bright squares, their boxes and labels."""
    random = torch.Generator().manual_seed(seed)
    image = 0.1 * torch.randn(3, 64, 96, generator=random)
    boxes, labels = [], []
    for label in range(1 + seed % 2):
        side = 24 - 8 * label
        top, left = (int(torch.randint(0, end - side, (), generator=random)) for end in (64, 96))
        image[label, top : top + side, left : left + side] += 2
        boxes.append([left, top, left + side, top + side])
        labels.append(label)
    return image, torch.tensor(boxes, dtype=torch.float32), torch.tensor(labels)


def detection_batches(count: int, empty: bool = False) -> list[Any]:
    batches = []
    for number in range(count):
        images, boxes, labels = zip(*(scene(4 * number + i) for i in range(4)), strict=True)
        counts = [0] * 4 if empty else [len(box) for box in boxes]
        packed = torch.cat(boxes)[: sum(counts)]
        targets = {
            "boxes": packed,
            "labels": torch.cat(labels)[: sum(counts)],
            "difficult": torch.zeros(sum(counts), dtype=torch.bool),
            "counts": counts,
            "sizes": [(64, 96)] * 4,
            "original_sizes": [(128, 192)] * 4,
            "ids": list(range(4 * number, 4 * number + 4)),
            "masks": torch.zeros(sum(counts), 64, 96, dtype=torch.uint8),
        }
        batches.append((torch.stack(images), targets))
    return batches


def segmentation_batches(count: int) -> list[Any]:
    batches = []
    for images, targets in detection_batches(count):
        masks = torch.zeros(4, 64, 96, dtype=torch.int64)
        masks[:, :4] = VOID
        for i, (first, count_) in enumerate(
            zip(torch.tensor(targets["counts"]).cumsum(0), targets["counts"], strict=True)
        ):
            for box, label in zip(targets["boxes"][first - count_ : first].long(), targets["labels"], strict=False):
                masks[i, box[1] : box[3], box[0] : box[2]] = 1 + label
        batches.append((images, masks))
    return batches


def loader(batches: list[Any]) -> DataLoader[Any]:
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


def small_detector(neck: Neck = "fpn", **arguments: Any) -> Detector:
    torch.manual_seed(0)
    net = FasterRCNN(
        CIFARResNet(8, width=8),
        2,
        neck,
        pyramid_channels=16,
        head_channels=32,
        training_proposals=(50, 50),
        test_proposals=(50, 50),
        regions_per_image=32,
        **arguments,
    )
    return Detector(net, 2, optimizer="adamw", lr=3e-3, class_names=("red", "green"))


def small_mask_rcnn(**arguments: Any) -> MaskRCNN:
    sizes = {"pyramid_channels": 16, "mask_channels": 16, "head_channels": 32, "regions_per_image": 32}
    return MaskRCNN(CIFARResNet(8, width=8), 2, **sizes, **arguments)


def trainer(folder: Path, **arguments: Any) -> L.Trainer:
    options: dict[str, Any] = {"max_epochs": 6, "accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    options |= {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    return L.Trainer(default_root_dir=folder, **(options | arguments))


def test_a_detector_learns_to_find_squares_and_comes_back_from_its_checkpoint(tmp_path: Path) -> None:
    module = small_detector()
    fit = trainer(tmp_path, max_epochs=12)
    fit.fit(module, loader(detection_batches(8)), loader(detection_batches(2)))
    assert fit.callback_metrics["val/map"] > 0.5
    assert {"train/loss", "lr", "val/ap/red", "val/ap/green"} <= fit.callback_metrics.keys()
    path = tmp_path / "detector.ckpt"
    fit.save_checkpoint(path)
    loaded = load_checkpoint(path)
    assert isinstance(loaded, Detector)
    [(images, targets), *_] = detection_batches(1)
    with torch.no_grad():
        for one, other in zip(module.eval()(images), loaded(images), strict=True):
            assert len(one["boxes"])
            assert all(torch.equal(one[name], other[name]) for name in one)
        [original, *_] = loaded.predict_step((images, targets), 0)
    assert torch.allclose(original["boxes"], 2 * loaded(images)[0]["boxes"])


def test_a_backbone_with_one_map_has_no_auxiliary_head():
    backbone = TimmBackbone("vit_tiny_patch16_224", 2, model_args={"dynamic_img_size": True})
    with pytest.raises(NetworkError, match="TimmBackbone has one map"):
        FCN(backbone, 3, output_stride=None)
    assert FCN(backbone, 3, output_stride=None, aux_head=False)(torch.randn(1, 3, 32, 32)).shape == (1, 3, 32, 32)


def test_a_segmenter_learns_squares_and_comes_back_from_its_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = FCN(CIFARResNet(8, width=8), 3, output_stride=2)
    module = Segmenter(net, 3, optimizer="momentum", lr=0.02, head_lr_scale=10, schedule="polynomial")
    fit = trainer(tmp_path)
    fit.fit(module, loader(segmentation_batches(8)), loader(segmentation_batches(2)))
    assert fit.callback_metrics["val/pixel_accuracy"] > 0.95
    assert fit.callback_metrics["val/miou"] > 0.6
    rates = sorted({group["initial_lr"] for group in fit.optimizers[0].param_groups})
    assert rates == pytest.approx([0.02, 0.2])
    path = tmp_path / "segmenter.ckpt"
    fit.save_checkpoint(path)
    images = segmentation_batches(1)[0][0]
    with torch.no_grad():
        assert torch.equal(load_checkpoint(path)(images), module.eval()(images))


def test_the_loss_of_a_segmenter_is_the_mean_of_the_labelled_pixels_however_they_are_batched(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Segmenter(FCN(CIFARResNet(8, width=4), 3, output_stride=None), 3)
    [(images, masks)] = segmentation_batches(1)
    masks[0, 2:] = VOID
    masks[1] = VOID
    with torch.no_grad():
        expected = float(module.loss(module.eval()(images), masks))
    for size in (1, 3, 4):
        batches = loader(list(zip(images.split(size), masks.split(size), strict=True)))
        [validated] = trainer(tmp_path).validate(module, batches, verbose=False)
        [tested] = trainer(tmp_path).test(module, batches, verbose=False)
        assert [validated["val/loss"], tested["test/loss"]] == pytest.approx([expected] * 2, rel=1e-5)


def rates(net: nn.Module, layer_decay: float) -> dict[str, float]:
    optimizer = make_optimizer(net, "adamw", 1.0, weight_decay=0.05, momentum=0.9, layer_decay=layer_decay)
    of = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    return {name: of[id(parameter)] for name, parameter in net.named_parameters()}


@pytest.mark.parametrize("build", [MaskRCNN, RetinaNet, FCN])
def test_the_learning_rate_falls_by_two_blocks_of_vanillanet_as_in_the_detectors_of_its_authors(
    build: Callable[..., nn.Module],
) -> None:
    """Stem 0, block i ⌊i / 2⌋ + 1, all else 7: r^(7 − number)."""
    found = rates(build(VanillaNet(10, depth=13, width=2), 2), 0.6)
    assert any(name.startswith("backbone.net.blocks.10.") for name in found)
    for name, rate in found.items():
        part, number = name.removeprefix("backbone.net.").split(".")[:2]
        group = {"stem": 0, "blocks": int(number) // 2 + 1 if number.isdecimal() else 7}.get(part, 7)
        assert rate == pytest.approx(0.6 ** (7 - group)), name


def test_the_learning_rate_falls_from_stage_to_stage_of_a_network_of_timm() -> None:
    backbone = TimmBackbone("resnet18", 10)
    assert len(set(rates(backbone, 0.9).values())) == 10
    found = rates(FCN(backbone, 2, output_stride=None), 0.5)
    stage = "backbone.net.model.layer{}.1.conv1.weight".format
    assert found["backbone.net.model.conv1.weight"] == 0.5**5
    assert [found[stage(i)] for i in (1, 2, 3, 4)] == [0.5**4, 0.5**3, 0.5**2, 0.5]
    assert found["classifier.0.weight"] == found["aux_classifier.4.bias"] == 1


def test_a_backbone_that_numbers_no_layers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("lit_models.networks.resnet._Stages.group_matcher")
    with pytest.raises(MisconfigurationException, match=r"layer_decay needs .* and CIFARResNet has none: set"):
        Segmenter(FCN(CIFARResNet(8, width=8), 3, output_stride=2), 3, layer_decay=0.6)


def test_images_without_objects_train_every_parameter(tmp_path: Path) -> None:
    for build in (
        small_detector,
        lambda: Detector(RetinaNet(CIFARResNet(8, width=8), 2, finest_stride=2, pyramid_channels=16), 2),
        lambda: Detector(small_mask_rcnn(), 2),
    ):
        module = build()
        fit = trainer(tmp_path, max_epochs=1)
        fit.fit(module, loader(detection_batches(1, empty=True)))
        assert fit.callback_metrics["train/loss"].isfinite()
        assert all(parameter.grad is not None for parameter in module.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("neck", ["fpn", "c4"])
def test_what_is_frozen_stays_bit_for_bit(neck: Neck, tmp_path: Path) -> None:
    module = small_detector(neck, frozen_stages=1, norm="statistics")
    for part in module.modules():
        if isinstance(part, BATCH_NORMS):
            nn.init.uniform_(part.running_mean, -0.1, 0.1)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    trainer(tmp_path, max_epochs=1).fit(module, loader(detection_batches(2)))
    after = module.state_dict()
    same = {name for name, value in before.items() if torch.equal(value, after[name])}
    stem = {name for name in before if name.startswith(("net.backbone.net.conv1", "net.backbone.net.layer1"))}
    assert stem
    assert stem <= same
    assert {name for name in before if "running_" in name} <= same
    assert "net.backbone.net.layer2.0.bn1.weight" not in same  # trained, though its statistics are kept
    frozen = small_detector(neck, norm="frozen")
    frozen.load_state_dict(before)
    trainer(tmp_path, max_epochs=1).fit(frozen, loader(detection_batches(2)))
    last_norm = "net.roi_heads.box_head.0.0.bn1.weight" if neck == "c4" else "net.backbone.net.layer3.0.bn1.weight"
    assert torch.equal(frozen.state_dict()[last_norm], before[last_norm])


def test_the_statistics_of_a_network_that_was_never_trained_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="never trained"):
        trainer(tmp_path).fit(small_detector(norm="frozen"), loader(detection_batches(1)))


@pytest.mark.parametrize("build", [small_detector, lambda **arguments: Detector(small_mask_rcnn(**arguments), 2)])
def test_boxes_and_masks_stay_float32_under_autocast(build: Callable[..., Detector]) -> None:
    """In bfloat16 boxes would come in steps of two pixels above 256."""
    module = build(min_score=0.0).eval()
    images = torch.randn(1, 3, 320, 512)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        [found] = module(images)
    assert found["boxes"].dtype == found.get("masks", found["boxes"]).dtype == torch.float32
    inside = found["boxes"][(found["boxes"] > 256) & (found["boxes"] < 319)]
    assert len(inside) > 10
    assert not torch.equal(inside, inside.bfloat16().float())


def test_a_mask_rcnn_says_that_the_data_has_no_masks() -> None:
    [(images, targets)] = detection_batches(1)
    targets.pop("masks")
    with pytest.raises(NetworkError, match=r"take COCODetection with masks: true, or the network FasterRCNN"):
        Detector(small_mask_rcnn(), 2).training_step((images, targets), 0)


@torch.no_grad()
def test_a_merged_vanillanet_detects_the_same_boxes() -> None:
    torch.manual_seed(0)
    backbone = VanillaNet(2, depth=5, width=8)
    net = FasterRCNN(backbone, 2, pyramid_channels=16, head_channels=32, min_score=0.0).double()
    for part in net.modules():
        if isinstance(part, BATCH_NORMS):
            nn.init.uniform_(part.running_mean, -0.2, 0.2)
            nn.init.uniform_(part.running_var, 0.5, 2)
    net.eval()
    backbone.set_activation_lambda(1.0)
    images = torch.randn(2, 3, 128, 160, dtype=torch.float64)
    before = net(images, [(128, 160)] * 2)
    backbone.reparameterize()
    after = net(images, [(128, 160)] * 2)
    for one, other in zip(before, after, strict=True):
        assert len(one["boxes"]) > 10
        assert torch.allclose(one["boxes"], other["boxes"], rtol=0, atol=1e-9)
        assert torch.equal(one["labels"], other["labels"])


def test_the_auxiliary_head_counts_with_its_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Segmenter(nn.Identity(), 2, aux_head_weight=0.25)
    main, aux = torch.randn(2, 1, 2, 4, 4)
    masks = torch.randint(2, (1, 4, 4))
    monkeypatch.setattr(module.net, "forward", lambda images: LogitsWithAux(main, (aux,)))
    monkeypatch.setattr(module, "log_step", lambda metrics: None)
    loss = module.training_step((main, masks), 0)
    torch.testing.assert_close(loss, module.loss(main, masks) + 0.25 * module.loss(aux, masks))


def test_each_validation_scores_its_own_images(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Detector(nn.Identity(), 1)
    monkeypatch.setattr(module, "log_dict", lambda *_, **__: None)
    boxes, labels = torch.tensor([[0.0, 0, 5, 5]]), torch.tensor([0])
    truth = {"boxes": boxes, "labels": labels, "difficult": labels > 0, "counts": [1], "ids": ["a"]}
    module.val_score.update([{"boxes": boxes, "scores": torch.ones(1), "labels": labels}], truth)
    module.on_validation_epoch_end()
    assert not module.val_score.update_called


def test_boxes_are_scaled_by_the_side_along_which_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Detector(nn.Identity(), 1)
    monkeypatch.setattr(module, "forward", lambda images, sizes: [{"boxes": torch.tensor([[1.0, 2, 3, 4]])}])
    [found] = module.predict_step((None, {"sizes": [(10, 20)], "original_sizes": [(30, 20)]}), 0)
    assert found["boxes"].tolist() == [[1, 6, 3, 12]]


def test_what_was_frozen_before_stays_so() -> None:
    net = CIFARResNet(8, width=4)
    net.conv1.requires_grad_(False)
    Trunk(net)
    assert not net.conv1.weight.requires_grad
    assert net.layer1[0].conv1.weight.requires_grad
