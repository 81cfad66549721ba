"""Networks that are compared differ in one callback (Huang et al. 2016, Veit et al. 2016)."""

import pytest
import yaml

from experiments.cli.recipes import recipes


@pytest.mark.parametrize(
    ("name", "callback"),
    [
        ("stochastic_depth", {"class_path": "callbacks.StochasticDepth", "init_args": {"survival_prob": 0.5}}),
        ("effective_paths", {"class_path": "callbacks.EffectivePathTraining", "init_args": {"blocks": 23}}),
    ],
)
def test_twins_differ_in_one_callback(name, callback):
    constant, twin = (
        yaml.safe_load(recipes()[stem].read_text()) for stem in ("resnet110_cifar10", f"resnet110_{name}_cifar10")
    )
    assert twin["trainer"]["callbacks"].pop() == callback
    assert constant == twin
