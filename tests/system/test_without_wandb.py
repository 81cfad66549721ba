"""Fathom in a process that has no W&B: neither its module nor its distribution."""

import os
import subprocess
import sys

import pytest

WITHOUT = """
import importlib.metadata, sys

def distribution(name, real=importlib.metadata.distribution):
    if name == "wandb":
        raise importlib.metadata.PackageNotFoundError(name)
    return real(name)

sys.modules["wandb"] = None  # its import raises ModuleNotFoundError
importlib.metadata.distribution = distribution
from experiments.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def without_wandb(repository, tmp_path):
    """Runs a command in such a process."""

    def run(*args):
        environment = os.environ | {"PYTHONPATH": str(repository)}
        words = [str(arg) for arg in args]
        command = [sys.executable, "-c", WITHOUT, *words]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    return run


def test_a_run_needs_no_wandb_where_it_is_disabled(without_wandb, tiny_config, tmp_path):
    done = without_wandb("fit", "--config", tiny_config, "--trainer.default_root_dir", tmp_path / "runs")
    assert done.returncode == 0, done.stderr[-2000:]
    (summary,) = tmp_path.glob("runs/tiny/*/summary.json")
    assert '"wandb"' not in summary.read_text()


def test_a_run_that_asks_for_it_says_what_to_do(without_wandb, tiny_config, tmp_path):
    args = "fit", "--config", tiny_config, "--trainer.default_root_dir", tmp_path / "runs", "--wandb.mode", "offline"
    done = without_wandb(*args)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Weights & Biases is not installed: pip install wandb, or take --wandb.mode disabled" in done.stderr


def test_the_check_needs_none(without_wandb, tmp_path):
    done = without_wandb("check", "--quick", "true", "--accelerator", "cpu", "--only", "[surroundings,recipes]")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "FAILED" not in done.stdout
    assert (tmp_path / "check.json").is_file()
