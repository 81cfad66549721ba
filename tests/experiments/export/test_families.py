"""Every family of networks, with random weights, in every format."""

from pathlib import Path

import pytest
import torch

from datamodules.pipeline.geometry import Geometry
from experiments.commands.export import FORMATS, _written
from experiments.export.comparison import cases, difference
from experiments.export.subject import Subject, free_sides
from experiments.export.trained import Trained
from lit_models import CIFARVGG, CIFARGoogLeNet, CIFARResNet, ResNet, TimmBackbone, VanillaNet

GREY = {"num_classes": 6, "in_channels": 1}
NETWORKS = {
    "VanillaNet": (lambda: VanillaNet(**GREY, depth=7, width=4, stem_kernel=2, stem_stride=2), 32),
    "CIFARResNet": (lambda: CIFARResNet(depth=8, width=4, **GREY), 16),
    "ResNet": (lambda: ResNet(depth=18, **GREY), 64),
    "CIFARGoogLeNet": (lambda: CIFARGoogLeNet(**GREY), 16),
    "CIFARVGG": (lambda: CIFARVGG(depth=11, width=4, **GREY), 32),
    "timm vit": (lambda: TimmBackbone("vit_tiny_patch16_224", **GREY, model_args=TINY_VIT), 32),
}
TINY_VIT = {"img_size": 32, "depth": 1, "embed_dim": 24, "num_heads": 2}


def randomised(net):
    """Weights and statistics with which the logits depend on the images."""
    torch.manual_seed(0)
    for name, value in net.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(std=0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif value.ndim > 1:
            value.normal_(std=value[0].numel() ** -0.5)
    if hasattr(net, "set_activation_lambda"):
        net.set_activation_lambda(1.0)
    return net.eval()


@pytest.mark.parametrize("family", NETWORKS)
def test_every_format_gives_the_logits(family, tmp_path):
    build, side = NETWORKS[family]
    geometry = Geometry(side, 0.875, "bicubic", channels=1)
    trained = Trained(Path("x.ckpt"), None, randomised(build()), list("abcdef"), geometry, (0.5,), (0.3,))
    subject = Subject(trained, torch.randn(12, 1, side, side))
    compared = cases(subject, free_sides(subject.program))
    assert free_sides(subject.program) == (family not in ("timm vit", "CIFARVGG"))
    assert compared[2][1].std(0).min() > 1e-4  # the logits differ from image to image
    for name in set(FORMATS) - {"aoti"}:  # compiling takes long; test_export does it once
        found = difference(_written(name, subject, tmp_path, False), compared)
        assert found.relative < 1e-4, (name, found)
