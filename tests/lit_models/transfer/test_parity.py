"""Detectors and segmenters against torchvision's with the same weights, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import fasterrcnn_resnet50_fpn, maskrcnn_resnet50_fpn, retinanet_resnet50_fpn
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.models.segmentation import fcn_resnet50

from lit_models import ResNet
from lit_models.interfaces import LogitsWithAux
from lit_models.transfer.faster_rcnn import FasterRCNN
from lit_models.transfer.fcn import FCN
from lit_models.transfer.mask_rcnn import MaskRCNN
from lit_models.transfer.retinanet import RetinaNet

SIZES = [(128, 160), (128, 160)]
NONE: dict[str, Any] = {"weights": None, "weights_backbone": None}
UNCHANGED: dict[str, Any] = {"min_size": 128, "max_size": 160, "image_mean": [0.0] * 3, "image_std": [1.0] * 3}


def images() -> Tensor:
    return torch.randn(2, 3, 128, 160, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def targets(first_label: int) -> list[dict[str, Tensor]]:
    boxes = torch.tensor([[10.0, 12, 90, 100], [60, 5, 140, 64]], dtype=torch.float64)
    labels = torch.tensor([3, 0]) + first_label
    masks = torch.zeros(2, 128, 160, dtype=torch.uint8)
    masks[0, 20:70, 30:90] = masks[1, 5:40, 80:140] = 1
    objects = {"boxes": boxes, "labels": labels, "masks": masks}
    return [objects, {name: column[:0] for name, column in objects.items()}]


def give_weights(ours: nn.Module, theirs: nn.Module, head: str) -> None:
    """Random weights of ``theirs``, with statistics that are not those of a new network, under our names."""
    torch.manual_seed(2)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    if isinstance(ours, MaskRCNN):
        nn.init.normal_(theirs.roi_heads.mask_predictor.mask_fcn_logits.weight, std=0.002)  # else all are 0 or 1
    for parameter in theirs.roi_heads.box_predictor.parameters() if hasattr(theirs, "roi_heads") else []:
        nn.init.normal_(parameter, std=0.2)
    if isinstance(ours, RetinaNet):
        nn.init.normal_(theirs.head.classification_head.cls_logits.weight, std=0.2)  # else no score is above .05
        nn.init.constant_(theirs.head.classification_head.cls_logits.bias, -2)
    renamed = {}
    for name, value in theirs.state_dict().items():
        name = name.replace("backbone.body.", "backbone.net.").replace("backbone.fpn.", "neck.fpn.")
        for part in ("rpn.head.", "roi_heads.box_predictor.", "roi_heads.mask_predictor.", head):
            if name.startswith(part):
                name = f"{part}head.{name.removeprefix(part)}"
        renamed[name] = value
    ours.load_state_dict(renamed)


DETECTORS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], int, str, int]] = {
    "faster r-cnn": (
        lambda: fasterrcnn_resnet50_fpn(num_classes=21, norm_layer=nn.BatchNorm2d, **NONE, **UNCHANGED),
        lambda: FasterRCNN(ResNet(50), 20),
        1,
        "-",
        41_449_656,
    ),
    "mask r-cnn": (
        lambda: maskrcnn_resnet50_fpn(num_classes=21, norm_layer=nn.BatchNorm2d, **NONE, **UNCHANGED),
        lambda: MaskRCNN(ResNet(50), 20),
        1,
        "-",
        44_077_773,
    ),
    "retinanet": (
        lambda: retinanet_resnet50_fpn(num_classes=21, norm_layer=nn.BatchNorm2d, **NONE, **UNCHANGED),
        lambda: RetinaNet(ResNet(50), 21),
        0,
        "head.",
        32_615_969,
    ),
}


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_is_that_of_torchvision(name: str) -> None:
    build_theirs, build_ours, first_label, head, parameters = DETECTORS[name]
    torch.manual_seed(0)  # with other weights there may be few boxes to compare
    theirs, ours = build_theirs().double(), build_ours().double()
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) == parameters
    give_weights(ours, theirs, head)
    theirs.eval(), ours.eval()
    with torch.no_grad():
        expected, found = theirs(list(images())), ours(images(), SIZES)
    for one, other in zip(expected, found, strict=True):
        assert len(one["boxes"]) > 5
        assert torch.allclose(one["boxes"], other["boxes"], rtol=0, atol=1e-10)
        assert torch.allclose(one["scores"], other["scores"], rtol=0, atol=1e-10)
        assert torch.equal(one["labels"] - first_label, other["labels"])
        assert ("masks" in one) == ("masks" in other)
        if "masks" in one:
            pasted = paste_masks_in_image(other["masks"], other["boxes"], SIZES[0])
            assert 0.01 < (other["masks"] > 0.5).double().mean() < 0.99
            assert torch.allclose(one["masks"], pasted, rtol=0, atol=1e-10)
    theirs.train(), ours.train()
    torch.manual_seed(3)
    expected = theirs(list(images()), targets(first_label))
    torch.manual_seed(3)
    for _ in images():
        torch.rand(1)  # torchvision draws the size of each image, of which there is one
    losses = ours(images(), SIZES, targets(0))
    assert losses.keys() == expected.keys()
    for part, value in expected.items():
        assert value > 0
        assert torch.allclose(losses[part], value, rtol=1e-10, atol=1e-10), part


def test_an_fcn_is_that_of_torchvision() -> None:
    theirs = fcn_resnet50(num_classes=21, aux_loss=True, weights=None, weights_backbone=None).double()
    ours = FCN(ResNet(50), 21).double()
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) == 35_322_218
    ours.load_state_dict({name.replace("backbone.", "backbone.net."): v for name, v in theirs.state_dict().items()})
    for net in (theirs, ours):
        for module in net.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    expected = theirs.train()(images())
    found = ours.train()(images())
    assert isinstance(found, LogitsWithAux)
    assert found.logits.shape == (2, 21, 128, 160)
    assert torch.allclose(found.logits, expected["out"], rtol=0, atol=1e-10)
    assert torch.allclose(found.aux_logits[0], expected["aux"], rtol=0, atol=1e-10)
    with torch.no_grad():
        assert torch.allclose(ours.eval()(images()), theirs.eval()(images())["out"], rtol=0, atol=1e-10)
