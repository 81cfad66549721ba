"""What a network starts from."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lit_models import (
    CIFARVGG,
    CheckpointError,
    CIFARAlexNet,
    CIFARGoogLeNet,
    CIFARResNet,
    Detector,
    FasterRCNN,
    ImageClassifier,
    TimmBackbone,
    VanillaNet,
    load_checkpoint,
)


def saved(module: L.LightningModule, path: Path) -> Path:
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path, weights_only=True)
    return path


@pytest.mark.parametrize(
    "build",
    [
        partial(CIFARResNet, 8),
        partial(CIFARGoogLeNet, width=4),
        partial(CIFARVGG, 11, width=4),
        partial(CIFARAlexNet, width=4),
        partial(VanillaNet, width=8),
        partial(TimmBackbone, "test_efficientnet"),
    ],
    ids=lambda build: build.func.__name__,
)
def test_the_classifier_stays_new_where_classes_differ(build: partial[nn.Module], tmp_path: Path) -> None:
    source = ImageClassifier(build(num_classes=10), 10)
    path = saved(source, tmp_path / "ten.ckpt")
    same = ImageClassifier(build(num_classes=10), 10, weights=str(path)).net.state_dict()
    other = ImageClassifier(build(num_classes=3), 3, weights=str(path)).net.state_dict()
    new = []
    for name, value in source.net.state_dict().items():
        assert torch.equal(value, same[name])
        if not torch.equal(value, other[name]):
            new.append(name)
    assert new
    assert all(name.removeprefix("model.").startswith(("fc.", "aux", "head.", "classifier.")) for name in new)


def test_a_checkpoint_does_not_ask_for_what_its_network_started_from(tmp_path: Path) -> None:
    start = saved(ImageClassifier(CIFARResNet(8), 10), tmp_path / "start.ckpt")
    path = saved(ImageClassifier(CIFARResNet(8), 10, weights=str(start)), tmp_path / "model.ckpt")
    start.unlink()
    assert load_checkpoint(path).hparams["weights"] is None


def test_the_backbone_of_a_detector_starts_from_a_classifier(tmp_path: Path) -> None:
    source = ImageClassifier(CIFARResNet(8), 10)
    path = saved(source, tmp_path / "classifier.ckpt")
    net = FasterRCNN(CIFARResNet(8), 2, pyramid_channels=16, head_channels=16)
    Detector(net, 2, weights=str(path))
    for name, value in net.backbone.net.state_dict().items():
        assert torch.equal(value, source.net.state_dict()[name])


def test_filters_for_three_channels_are_summed_up_for_one(tmp_path: Path) -> None:
    source = CIFARResNet(8)
    save_file({name: value.contiguous() for name, value in source.state_dict().items()}, tmp_path / "net.safetensors")
    grey = ImageClassifier(CIFARResNet(8, in_channels=1), 10, weights=str(tmp_path / "net.safetensors")).eval()
    images = torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        assert torch.allclose(grey(images), source.eval()(images.expand(-1, 3, -1, -1)), atol=1e-5)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = saved(ImageClassifier(CIFARResNet(8), 10), tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match=r"layer1\.1\.\S+ is missing"):
        ImageClassifier(CIFARResNet(14), 10, weights=str(path))
    with pytest.raises(CheckpointError, match="there and"):
        ImageClassifier(CIFARResNet(8, width=8), 10, weights=str(path))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ImageClassifier(CIFARResNet(8), 10, weights=str(tmp_path / "nowhere.ckpt"))
