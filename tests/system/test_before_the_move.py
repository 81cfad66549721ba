"""Files of version 0.1, whose modules lay elsewhere, still load: a run's configuration and two of its checkpoints."""

import shutil
from pathlib import Path

import pytest
import torch

from lit_models import load_checkpoint

FILES = Path(__file__).with_name("before_the_move")


@pytest.fixture
def old_run(tmp_path):
    """The directory of a run that version 0.1 trained, in which a class has its name of then."""
    run = tmp_path / "runs" / "sd" / "20261125-183812-244022"
    (run / "checkpoints").mkdir(parents=True)
    config = (FILES / "config.yaml").read_text()
    assert "callbacks.StochasticDepth" in config
    (run / "config.yaml").write_text(
        config.replace("callbacks.StochasticDepth", "callbacks.stochastic_depth.StochasticDepth")
    )
    for name in ("best.ckpt", "last.ckpt"):
        shutil.copy(FILES / name, run / "checkpoints")
    return run


def test_an_old_name_of_a_class_is_understood():
    hyper_parameters = torch.load(FILES / "best.ckpt", weights_only=True)["hyper_parameters"]
    assert hyper_parameters["net"]["class_path"] == "lit_models.resnet.CIFARResNet"
    model = load_checkpoint(FILES / "best.ckpt")
    assert type(model.net).__module__ == "lit_models.networks.resnet"
    assert model(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


def test_an_old_run_is_tested(old_run, fathom):
    assert fathom("test", "--ckpt_path", old_run / "checkpoints" / "best.ckpt") == (0, "")


def test_an_old_run_is_resumed(old_run, fathom):
    assert fathom("resume", old_run, "--trainer.max_epochs", "3") == (0, "")
    assert torch.load(old_run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 3
