"""The pair of Huang et al. 2016."""

import yaml


def test_the_pair_differs_in_one_callback(repository):
    constant, stochastic = (
        yaml.safe_load((repository / "experiments" / f"{name}.yaml").read_text())
        for name in ("resnet110_cifar10", "resnet110_stochastic_depth_cifar10")
    )
    added = stochastic["trainer"]["callbacks"].pop()
    assert added == {"class_path": "callbacks.StochasticDepth", "init_args": {"survival_prob": 0.5}}
    assert constant == stochastic
