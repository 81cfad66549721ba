"""Recipes by name."""

import pytest

from experiments.__main__ import main
from experiments.cli.recipes import recipe_path, recipes


def test_every_recipe_is_listed(capsys):
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(recipes()) >= 20
    assert {line.split(" ")[0] for line in lines} >= {*recipes()}
    (line,) = [line for line in lines if line.startswith("resnet110_stochastic_depth_cifar10 ")]
    assert line.split()[1:] == ["stochastic", "depth", "CIFARResNet-110", "CIFAR10", "500"]


def test_a_file_of_the_name_goes_before_the_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert recipe_path("vanillanet_digits").endswith("vanillanet/vanillanet_digits.yaml")
    (tmp_path / "vanillanet_digits").touch()
    assert recipe_path("vanillanet_digits") == "vanillanet_digits"


@pytest.mark.parametrize(
    "config", ["vanilanet_digits", "experiments/vanillanet_digits.yaml", "vanillanet/vanillanet_digits.yml"]
)
def test_the_nearest_recipe_is_named(config, fathom):
    expected = f"there is no recipe or configuration file {config}; did you mean vanillanet_digits?"
    assert fathom("fit", "--config", config) == (1, expected)
