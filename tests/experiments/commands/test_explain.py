"""``fathom explain``: its words for two experiments, and that it does nothing but speak."""

import json

import pytest
import yaml

from experiments.__main__ import main
from lit_models import CIFARResNet
from lit_models.cost import count_branch_macs, count_macs

VANILLANET = """\
network           VanillaNet, 240,716 parameters
data              Digits, 1,294 training images of 32 pixels, 10 classes
batch             64 images a step: batches of 64 × 1 (devices) × 1 (accumulated)
steps             420 in all, 21 an epoch
precision         32-true
optimizer         adamw (AdamW), weight decay 0.05, biases and 1-D parameters exempt
learning rate     0.002 at its peak
                  21 steps of warm-up, then cosine
                  9.52e-05 in step 1, 0.002 in step 22, 0.00109 in step 210, 3.1e-08 in step 420
groups            weight decay 0: 5,256 parameters in 44 tensors
                  weight decay 0.05: 235,460 parameters in 17 tensors
zero-γ            none
loss              cross-entropy, label smoothing to 0.91 for the true class, 0.01 for each other
mixing            none
annealing         λ from 0 to 1 in 6 epochs, linear, by epoch
weight averaging  decay 0.99, which spans about 100 steps
training cost     3.98 M multiply-adds forward, 11.95 M forward and backward for an image
                  309.32 G for the fit of 25,880 images
"""

RESNET = """\
network        ResNet, 23,547,178 parameters
data           Digits, 1,409 training images of 224 pixels, 10 classes
batch          1,024 images a step: batches of 64 × 8 (devices) × 2 (accumulated)
steps          400 in all, 2 an epoch
precision      32-true
optimizer      sgd (SGD), weight decay 0.0001, biases and 1-D parameters exempt
learning rate  0.4 at its peak, which is 0.1 for 256 images
               10 steps of warm-up, then cosine
               0.04 in step 1, 0.4 in step 11, 0.21 in step 200, 6.49e-06 in step 400
groups         weight decay 0: 53,258 parameters in 111 tensors
               weight decay 0.0001: 23,493,920 parameters in 56 tensors
zero-γ         16 layers, layer1.0.bn3 to layer4.2.bn3
loss           cross-entropy, label smoothing to 0.9 for the true class, 0.01111 for each other
mixing         mixup with α = 0.2, on 100% of the batches
training cost  4.32 G multiply-adds forward, 12.96 G forward and backward for an image
               3.65 P for the fit of 281,800 images
"""


@pytest.fixture
def explain(repository, tmp_path, monkeypatch, capsys):
    """Runs the command from the repository, with its runs elsewhere: exit code, stdout, stderr."""
    monkeypatch.chdir(repository)

    def run(config, *flags):
        options = ["--trainer.default_root_dir", str(tmp_path), "--trainer.accelerator", "cpu"]
        code = main(["explain", "--config", config, *options, *flags])
        return code, *capsys.readouterr()

    return run


def topic(printed, name):
    (line,) = [line for line in printed.splitlines() if line.startswith(f"{name}  ")]
    return line.removeprefix(name).strip()


def test_the_recipe_of_vanillanet(explain, tmp_path):
    averaging = tmp_path / "averaging.yaml"
    callback = {"class_path": "callbacks.WeightAveraging", "init_args": {"decay": 0.99}}
    averaging.write_text(yaml.safe_dump({"trainer": {"callbacks+": callback}}))
    code, printed, _ = explain("vanillanet_digits", "--config", str(averaging), "--trainer.precision", "32-true")
    assert (code, printed) == (0, VANILLANET)
    assert list(tmp_path.iterdir()) == [averaging]


def test_the_bag_of_tricks_on_eight_devices(explain, tmp_path):
    """What differs from the experiment's own is said by flags, and none of the devices is started."""
    code, printed, _ = explain(
        "resnet50d_imagenet_tricks",
        *("--data", "datamodules.Digits", "--data.image_size", "224", "--data.batch_size", "64"),
        *("--trainer.devices", "8", "--trainer.accumulate_grad_batches", "2", "--trainer.precision", "32-true"),
    )
    assert (code, printed) == (0, RESNET)
    assert list(tmp_path.iterdir()) == []


def test_stochastic_depth_is_in_the_cost(explain, tmp_path):
    code, printed, _ = explain(
        *("resnet110_stochastic_depth_cifar10", "--data", "datamodules.Digits", "--model.net.init_args.depth", "20"),
        *("--trainer.max_epochs", "3", "--curve", str(tmp_path / "curve.png")),
    )
    assert code == 0
    net = CIFARResNet(20, in_channels=1, downsample="average_pool")
    branches = count_branch_macs(net, (1, 32, 32))
    kept = [1 - block / 9 * 0.5 for block in range(1, 10)]
    expected = count_macs(net, (1, 32, 32)) - sum((1 - prob) * macs for prob, macs in zip(kept, branches, strict=True))
    assert topic(printed, "training cost").startswith(f"{expected / 1e6:.2f} M multiply-adds expected forward")
    assert topic(printed, "stochastic depth") == "p_L = 0.5, linear, by batch"
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_effective_paths_are_in_the_cost(explain, tmp_path):
    config = tmp_path / "short_paths.yaml"
    callback = {"class_path": "callbacks.EffectivePathTraining", "init_args": {"blocks": 3}}
    config.write_text(yaml.safe_dump({"trainer": {"callbacks+": callback}}))
    code, printed, _ = explain("resnet20_cifar10", "--config", str(config), "--data", "datamodules.Digits")
    assert code == 0
    net = CIFARResNet(20, in_channels=1)
    expected = count_macs(net, (1, 32, 32)) - sum(count_branch_macs(net, (1, 32, 32))) * 2 / 3
    assert topic(printed, "training cost").startswith(f"{expected / 1e6:.2f} M multiply-adds expected forward")
    assert topic(printed, "effective paths") == "3 of 9 blocks open in each step"


STRANGERS = """
import lightning as L
import torch
from torch import nn


class Halving(L.Callback):
    def explain(self, trainer):
        return {"halving": f"of {type(trainer.lightning_module).__name__}, {trainer.datamodule.batch_size} at a time"}

    def skipped_macs(self, image_shape):
        return 10.0 ** 6


class Silent(L.LightningModule):
    def __init__(self, net: nn.Module, num_classes: int, image_size: int, mean: tuple, std: tuple):
        super().__init__()
        self.net = net

    def training_step(self, batch, batch_idx):
        return self.net(batch[0]).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)
"""


@pytest.fixture
def strangers(tmp_path, monkeypatch):
    """A configuration with a callback of the user's."""
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "strangers_of_explain.py").write_text(STRANGERS)
    monkeypatch.syspath_prepend(tmp_path / "user")
    config = tmp_path / "user" / "mine.yaml"
    config.write_text("trainer: {callbacks+: {class_path: strangers_of_explain.Halving}}\n")
    return str(config)


def test_a_callback_of_the_user_explains_itself(explain, strangers):
    code, printed, _ = explain("vanillanet_digits", "--config", strangers)
    assert code == 0
    assert topic(printed, "halving") == "of ImageClassifier, 64 at a time"
    assert topic(printed, "training cost").startswith("2.98 M multiply-adds expected forward, 8.95 M")


def test_a_module_of_the_user_need_not_explain_itself(explain, strangers, tmp_path):
    flags = ["--config", strangers, "--model", "strangers_of_explain.Silent", "--data", "datamodules.Digits"]
    flags += ["--trainer.max_epochs", "3", "--data.batch_size", "64"]
    code, printed, said = explain("resnet20_cifar10", *flags)
    assert code == 0, said
    assert topic(printed, "halving") == "of Silent, 64 at a time"
    assert topic(printed, "steps") == "63 in all, 21 an epoch"
    code, _, said = explain("resnet20_cifar10", *flags, "--curve", str(tmp_path / "curve.png"))
    assert code == 1
    assert "Silent has none: leave it out" in said


def test_it_says_what_a_fit_does(explain, tmp_path):
    """The steps and the last learning rate, beside those of the fit itself."""
    flags = ["--data.train_size", "64", "--data.batch_size", "16", "--trainer.max_epochs", "2"]
    flags += ["--model.lr_batch_size", "64", "--trainer.accumulate_grad_batches", "2"]
    _, printed, _ = explain("vanillanet_digits", *flags)
    run = ["--wandb.mode", "disabled", "--trainer.enable_progress_bar", "false", "--trainer.log_every_n_steps", "1"]
    options = ["--trainer.default_root_dir", str(tmp_path), "--trainer.accelerator", "cpu"]
    assert main(["fit", "--config", "vanillanet_digits", *options, *run, *flags]) == 0
    (summary_file,) = tmp_path.glob("*/*/summary.json")
    summary = json.loads(summary_file.read_text())
    assert topic(printed, "steps") == f"{summary['steps']} in all, 2 an epoch"
    # 2e-3 scaled to 32 of 64 images; the third step is the first of the cosine, the fourth its middle.
    assert topic(printed, "learning rate").startswith("0.001 at its peak")
    assert "0.0005 in step 4" in printed
    assert summary["metrics"]["lr"] == pytest.approx(0.0005)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--trainer.max_epoch", "3"], "max_epoch"),
        (["--data", "datamodules.ImageNet", "--data.root", "nowhere"], "nowhere"),
        (["--curve"], "--curve"),
        (["--model.layer_decay", "2"], "layer_decay"),
    ],
)
def test_a_mistake_gets_one_sentence(flags, named, explain, tmp_path):
    code, _, error = explain("vanillanet_digits", *flags)
    assert code in (1, 2)
    (sentence,) = [line for line in error.splitlines() if line.startswith("fathom: ")]
    assert named in sentence
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []
