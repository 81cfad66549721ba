"""Recipes by name."""

import pytest

from experiments.__main__ import main
from experiments.cli.read_config import read_config
from experiments.cli.recipes import config_paths, recipes


def test_every_recipe_is_listed(capsys):
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(recipes()) >= 20
    assert {line.split(" ")[0] for line in lines} >= {*recipes()}
    (line,) = [line for line in lines if line.startswith("resnet110_stochastic_depth_cifar10 ")]
    assert line.split()[1:] == ["stochastic", "depth", "CIFARResNet-110", "CIFAR10", "500"]
    (line,) = [line for line in lines if line.startswith("detection_bccd ")]
    assert line.split()[1:] == ["transfer", "FasterRCNN,", "ResNet-18", "VOCDetection", "9"]


def test_a_file_of_the_name_goes_before_the_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (path,) = config_paths("vanillanet_digits")
    assert path.endswith("vanillanet/vanillanet_digits.yaml")
    (tmp_path / "vanillanet_digits").touch()
    assert config_paths("vanillanet_digits") == ["vanillanet_digits"]


def test_networks_of_several_depths_share_a_recipe(capsys):
    shared, own = config_paths("vanillanet6_imagenet")
    assert shared.endswith("/vanillanet_imagenet.yaml")
    assert own.endswith("/vanillanet6_imagenet.yaml")
    assert len(config_paths("vanillanet_imagenet")) == len(config_paths("resnet110_cifar10")) == 1
    assert main(["recipes", "--cost", "true"]) == 0
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line}
    assert lines["vanillanet6_imagenet"][-3:-1] == ["300", "56,116,704"]
    assert lines["resnet20_cifar10"][-2:] == ["269,722", "40,551,040"]
    assert lines["faster_rcnn_voc"][-3] == "20"


@pytest.mark.parametrize(
    "config", ["vanilanet_digits", "experiments/vanillanet_digits.yaml", "vanillanet/vanillanet_digits.yml"]
)
def test_the_nearest_recipe_is_named(config, fathom):
    expected = f"there is no recipe or configuration file {config}; did you mean vanillanet_digits?"
    assert fathom("fit", "--config", config) == (1, expected)


def test_the_recipe_of_vanillanet_erases_and_interpolates_as_its_authors_do():
    """Their defaults: --remode pixel, --reprob 0.25, --train_interpolation bicubic, --opt_eps 1e-8."""
    (path,) = config_paths("vanillanet_imagenet")
    config = read_config(path)
    data = config["data"]["init_args"]
    assert (data["erasing_mode"], data["erasing"], data["interpolation"]) == ("pixel", 0.25, "bicubic")
    assert config["model"]["init_args"]["optimizer_args"] == {"eps": 1e-8}


def test_the_recipe_of_the_authors_of_stochastic_depth_drops_as_their_code_does():
    """It compares epochs from 1 on: 0.1 where epoch < 500 · 0.5, 0.01 where epoch < 500 · 0.75."""
    (path,) = config_paths("resnet110_stochastic_depth_torch7_cifar10")
    config = read_config(path)
    tenths = [0 if epoch < 250 else 1 if epoch < 375 else 2 for epoch in range(1, 501)]
    milestones = config["model"]["init_args"]["milestones"]
    assert [sum(done >= milestone for milestone in milestones) for done in range(500)] == tenths
    assert config["model"]["init_args"]["no_bias_decay"] is False
