"""The example of the README: a new network is two files, and no list anywhere has to know it."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
import yaml

import lit_models.networks
from experiments.__main__ import main
from lit_models import load_checkpoint


@pytest.fixture
def example(repository):
    """The files under "Adding to it": a fenced block each, after a line that ends with its path."""
    section = (repository / "README.md").read_text().split("\n## Adding to it\n")[1].split("\n## ")[0]
    blocks = re.findall(r"`(\S+\.(?:py|yaml))`[^`\n]*:?\n+```\w+\n(.*?)```", section, re.DOTALL)
    return dict(blocks)


def test_two_files_make_a_network_that_trains_and_loads(example, tmp_path, monkeypatch, capsys):
    assert sorted(path.split("/")[0] for path in example) == ["experiments", "lit_models"]
    for path, text in example.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    # As if the two lay in the repository.
    networks = [*lit_models.networks.__path__, str(tmp_path / "lit_models" / "networks")]
    monkeypatch.setattr(lit_models.networks, "__path__", networks)
    (config,) = (tmp_path / "experiments").glob("*.yaml")
    quick = ["--wandb.mode", "disabled", "--trainer.enable_progress_bar", "false"]
    runs = ["--trainer.default_root_dir", str(tmp_path / "runs")]
    assert main(["fit", "--config", str(config), "--trainer.max_steps", "1", *quick, *runs]) == 0, capsys.readouterr()
    (run,) = (tmp_path / "runs").glob("*/*")
    class_path = yaml.safe_load(config.read_text())["model"]["init_args"]["net"]["class_path"]
    monkeypatch.delitem(__import__("sys").modules, class_path.rpartition(".")[0])
    model = load_checkpoint(run / "checkpoints" / "last.ckpt")
    assert type(model.net).__name__ == class_path.rpartition(".")[2]
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_the_tests_of_every_network_find_it(example, repository, tmp_path):
    (network,) = (path for path in example if path.endswith(".py"))
    for room in ("lit_models", "datamodules", "callbacks", "experiments"):
        shutil.copytree(repository / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    contract = "tests/lit_models/networks/test_contract.py"
    for file in ("tests/conftest.py", contract):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(repository / file, tmp_path / file)
    (tmp_path / network).write_text(example[network])
    result = subprocess.run(
        [sys.executable, "-m", "pytest", contract, "-k", "LeNet and not Goog", "-v", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout
    assert len(re.findall(r"\[LeNet\] PASSED", result.stdout)) == 7
