"""Any LightningModule and any network can be trained, tested and resumed; each gets the facts it has parameters for."""

import json
import sys

import pytest
import torch
import yaml
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules import Digits
from experiments.cli.contract import check_network
from lit_models import CIFARResNet, ImageClassifier

PACKAGE = '''
import lightning as L
import torch
import torch.nn.functional as F
from torch import nn


def body(channels, classes):
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))


class TwoFacts(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.body = body(in_channels, num_classes)

    def forward(self, x):
        return self.body(x)


class OneFact(TwoFacts):
    def __init__(self, num_classes: int):
        super().__init__(num_classes, 1)


class NoFact(TwoFacts):
    def __init__(self):
        super().__init__(10, 1)


class AllFacts(TwoFacts):
    def __init__(self, class_names: list[str], num_classes: int, in_channels: int, image_size: int, mean, std):
        super().__init__(num_classes, in_channels)
        assert class_names == [str(digit) for digit in range(10)]
        assert image_size == 8 and len(mean) == len(std) == 1


class Module(L.LightningModule):
    """Without a network of that name."""

    def __init__(self, num_classes: int, class_names: list[str], in_channels: int = 1):
        super().__init__()
        self.save_hyperparameters()
        assert len(class_names) == num_classes
        self.layers = body(in_channels, num_classes)

    def training_step(self, batch, i):
        return F.cross_entropy(self.layers(batch[0]), batch[1])

    def validation_step(self, batch, i):
        self.log("val/top1", (self.layers(batch[0]).argmax(1) == batch[1]).float().mean())

    def test_step(self, batch, i):
        self.log("test/top1", (self.layers(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class ModuleWithoutFacts(Module):
    def __init__(self):
        L.LightningModule.__init__(self)
        self.layers = body(1, 10)


class Own(L.LightningDataModule):
    """Says nothing about itself."""

    def train_dataloader(self):
        return torch.utils.data.DataLoader([(torch.rand(1, 8, 8), label) for label in range(4)], batch_size=2)

    val_dataloader = test_dataloader = train_dataloader
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of the user's in the current folder, which the tests of another folder do not know."""
    name = f"lab_{abs(hash(str(tmp_path)))}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(PACKAGE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield name
    sys.modules.pop(name, None)


@pytest.fixture
def lives(package, tiny_config, fathom, tmp_path):
    """Trains with some flags, tests the run and resumes it for longer: the run directory."""

    def run(*flags):
        consent = ("--import", package)
        assert fathom("fit", "--config", tiny_config, *flags) == (0, "")
        (run_directory,) = (tmp_path / "runs").glob("tiny/*")
        assert fathom("test", "--ckpt_path", run_directory / "checkpoints" / "last.ckpt", *consent) == (0, "")
        assert len(list(run_directory.glob("test/*/summary.json"))) == 1
        assert fathom("resume", run_directory, *consent, "--trainer.max_epochs", 2) == (0, "")
        assert json.loads((run_directory / "summary.json").read_text())["epochs"] == 2
        return run_directory

    return run


@pytest.mark.parametrize(
    ("net", "facts"),
    [
        ("TwoFacts", {"num_classes", "in_channels"}),
        ("OneFact", {"num_classes"}),
        ("NoFact", set()),
        ("AllFacts", {"num_classes", "in_channels", "class_names", "image_size", "mean", "std"}),
    ],
)
def test_a_network_gets_what_it_has_parameters_for(net, facts, package, lives):
    run_directory = lives("--model.net", f"{package}.{net}")
    spec = yaml.safe_load((run_directory / "config.yaml").read_text())["model"]["init_args"]["net"]
    assert spec == {"class_path": f"{package}.{net}"}
    hparams = torch.load(run_directory / "checkpoints" / "last.ckpt", weights_only=True)["hyper_parameters"]
    assert hparams["net"].get("init_args", {}).keys() == facts
    assert hparams["num_classes"] == 10


@pytest.mark.parametrize(
    ("module", "facts"), [("Module", {"num_classes", "in_channels", "class_names"}), ("ModuleWithoutFacts", set())]
)
def test_a_module_needs_no_network(module, facts, package, lives, tiny_config, tmp_path):
    config = yaml.safe_load(tiny_config.read_text()) | {"model": {"class_path": f"{package}.{module}"}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    run_directory = lives("--config", tmp_path / "tiny.yaml", "--model", f"{package}.{module}")
    checkpoint = torch.load(run_directory / "checkpoints" / "last.ckpt", weights_only=True)
    named = {name for name in checkpoint.get("hyper_parameters", {}) if not name.startswith("_")}
    assert named == facts
    assert json.loads((run_directory / "summary.json").read_text())["parameters"] > 0


def test_a_data_module_may_say_nothing_about_itself(package, fathom, tmp_path):
    config = {
        "model": {"class_path": f"{package}.ModuleWithoutFacts"},
        "data": {"class_path": f"{package}.Own"},
        "trainer": {"max_epochs": 1, "enable_progress_bar": False},
        "wandb": {"mode": "disabled"},
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(config))
    assert fathom("fit", "--config", tmp_path / "own.yaml") == (0, "")


def test_a_network_is_tried_on_an_image_on_every_python():
    """From Python 3.12 on isinstance with a protocol does not see the network, which is a part of the module."""
    data = Digits(image_size=8)
    data.num_classes = 7
    with pytest.raises(MisconfigurationException, match=r"logits of shape \(N, 7\)"):
        check_network(ImageClassifier(CIFARResNet(8, num_classes=10, in_channels=1), 10), data, trains=True)
