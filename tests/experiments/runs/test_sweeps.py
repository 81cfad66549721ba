"""Sweep files of Weights & Biases, carried out by its agent, which gets its orders from us."""

import os
import sys

import pytest
import yaml
from wandb.wandb_agent import Agent

SWEEPS = {
    "vanillanet/sweeps/vanillanet_digits": {"model.lr": 0.004, "model.weight_decay": 0.05, "seed_everything": 2},
    "resnet/sweeps/resnet20_cifar10": {"model.lr": 0.3, "seed_everything": 1},
}


@pytest.fixture
def agent(repository, tmp_path, monkeypatch):
    """Runs one run of a sweep as ``wandb agent`` does; its exit code."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "fathom"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m experiments "$@" $MORE\n')
    command.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    # What the server tells the agent, which hands it on.
    told = {"WANDB_SWEEP_ID": "s1", "WANDB_PROJECT": "sweeps", "PYTHONPATH": str(repository)}
    os.environ.update(told, PATH=f"{command.parent}:{os.environ['PATH']}")

    def run(sweep, parameters, more):
        os.environ["MORE"] = more
        agent = Agent(api=None, queue=None, sweep_id="s1")
        agent._sweep_command = sweep["command"]
        args = {name: {"value": value} for name, value in parameters.items()}
        agent._command_run({"type": "run", "run_id": "abc123", "program": sweep["program"], "args": args})
        return agent._run_processes["abc123"].wait(timeout=200)

    yield run
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize("name", SWEEPS)
def test_the_agent_trains_with_its_parameters_under_its_id(name, agent, repository, tmp_path):
    sweep = yaml.safe_load((repository / "experiments" / f"{name}.yaml").read_text())
    assert SWEEPS[name].keys() == sweep["parameters"].keys()
    small = ["--wandb.mode offline --trainer.max_epochs 1 --trainer.limit_train_batches 2 --wandb.artifacts false"]
    if "digits" not in name:
        small.append("--data datamodules.Digits --data.batch_size 8")  # the real images are not everywhere
        sweep["command"] = [word for word in sweep["command"] if word not in ("--data.root", "data")]
    assert agent(sweep, SWEEPS[name], " ".join(small)) == 0
    (config,) = tmp_path.glob("runs/*/*/config.yaml")
    settings = yaml.safe_load(config.read_text())
    assert settings["seed_everything"] == SWEEPS[name]["seed_everything"]
    assert settings["model"]["init_args"]["lr"] == SWEEPS[name]["model.lr"]
    assert settings["wandb"]["project"] == "sweeps"
    assert len(list(config.parent.glob("wandb/offline-run-*-abc123/run-abc123.wandb"))) == 1
