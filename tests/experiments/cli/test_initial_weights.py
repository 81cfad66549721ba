"""Weights that a network starts from, on the command line."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

from experiments.cli.initial_weights import with_backbones
from lit_models import CheckpointError, load_checkpoint
from lit_models.checkpoints import read_checkpoint

QUICK = ["--wandb.mode", "disabled", "--trainer.enable_progress_bar", "false", "--trainer.max_steps", "1"]
QUICK += ["--trainer.limit_val_batches", "1"]


def newest(folder):
    return max(folder.glob("*/*/config.yaml"), key=lambda path: path.stat().st_mtime_ns).parent


@pytest.fixture
def run(tmp_path, fathom, digits_folder):
    """Fits on a folder of three classes of photos of digits; the directory of the run."""

    def fit(*flags):
        runs = tmp_path / "runs"
        data = ["--data", "SmallImages", "--data.root", str(digits_folder), "--data.batch_size", "8"]
        fathom("fit", *data, *flags, *QUICK, "--trainer.default_root_dir", str(runs))
        return newest(runs)

    return fit


NET = ["--model", "ImageClassifier", "--model.net", "CIFARResNet", "--model.net.depth", "8", "--model.net.width", "4"]


def test_fine_tuning_normalises_images_as_the_weights_expect(run, tmp_path):
    first = run(*NET, "--data.mean", "[.1,.2,.3]", "--data.std", "[.4,.5,.6]")
    second = run(*NET, "--model.weights", str(first))
    config = yaml.safe_load((second / "config.yaml").read_text())
    assert config["data"]["init_args"]["mean"] == [0.1, 0.2, 0.3]
    assert config["data"]["init_args"]["std"] == [0.4, 0.5, 0.6]
    assert load_checkpoint(second).hparams["mean"] == (0.1, 0.2, 0.3)
    own = run(*NET, "--model.weights", str(first), "--data.mean", "[.5,.5,.5]")
    assert yaml.safe_load((own / "config.yaml").read_text())["data"]["init_args"]["mean"] == [0.5, 0.5, 0.5]


def test_a_run_becomes_a_backbone(run):
    first = run(*NET)
    flag, net, weights, path = with_backbones(["--model.net.backbone", str(first)])
    assert json.loads(net)["init_args"]["depth"] == 8
    assert [flag, weights, path] == ["--model.net.backbone", "--model.weights", str(first)]
    assert with_backbones(["--model.net.backbone=timm:resnet18", "--x", "1"]) == [
        "--model.net.backbone=timm:resnet18",
        "--x",
        "1",
    ]


def test_a_checkpoint_that_does_not_know_its_network_is_no_backbone(run, tmp_path):
    first = run(*NET)
    checkpoint = dict(read_checkpoint(first / "checkpoints" / "last.ckpt"))
    checkpoint["hyper_parameters"] = {}
    torch.save(checkpoint, tmp_path / "bare.ckpt")
    with pytest.raises(CheckpointError, match=r"give its class as --model\.net\.backbone, and --model\.weights"):
        with_backbones([f"--model.net.backbone={tmp_path / 'bare.ckpt'}"])
